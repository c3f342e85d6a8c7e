// A latency budget as a share of the compute, or in milliseconds on the worker's device. props.value: what a request
// has, "0.5" or "45ms", "" where the model takes none. props.budgets: [share, milliseconds or null], rising to the full
// model's, as the worker says at /ready.
const find = (selector) => element.querySelector(selector)
const wanted = { share: 100 * Number(props.value), ms: null }
const group = `unit-${Math.random()}` // of radio buttons; a page has several of these controls
let unit = 'share'

const milliseconds = () => props.budgets.map(([, ms]) => ms)
const scale = () => {
    if (unit === 'share') {
        const minimum = 100 * props.budgets[0][0]
        return { minimum, full: 100, from: Math.floor(minimum), to: 100, lowest: 1, highest: 100, step: 1, name: '%' }
    }
    const minimum = Math.min(...milliseconds()), full = milliseconds().at(-1)
    const [from, to] = [Math.max(1, Math.floor(0.75 * minimum)), Math.ceil(1.25 * full)]
    return { minimum, full, from, to, lowest: 1, highest: 1e6, step: 1, name: 'ms' }
}

const takes = (share) => { // milliseconds, between the two budgets that the worker has said around it
    const above = props.budgets.findIndex(([other]) => share <= other)
    const [[low, lowMs], [high, highMs]] = [props.budgets[Math.max(0, above - 1)], props.budgets[above]]
    return high === low ? highMs : lowMs + (highMs - lowMs) * (share - low) / (high - low)
}

const meaning = ({ minimum }) => {
    const value = wanted[unit]
    if (value < Math.floor(minimum)) return 'Less than the cheapest plan takes: that one runs, and the answer says so.'
    if (unit === 'ms') return 'To the first token on the worker\u2019s device; the marks are for one image and a short question.'
    const compute = value === 100 ? 'All of the language model runs' : 'This share of the language model\u2019s compute'
    if (props.budgets[0][1] === null) return `${compute}.`
    return `${compute}: the first token within about ${Math.round(takes(value / 100))} ms.`
}

const mark = (selector, text, value, { from, to }) => {
    const at = (value - from) / (to - from)
    find(selector).textContent = text
    find(selector).style.setProperty('--at', at)
    find(selector).style.setProperty('--shift', at < 0.15 ? '0%' : at > 0.85 ? '-100%' : '-50%')
}

const draw = () => {
    const known = Boolean(props.budgets)
    find('.control').hidden = !known
    find('.no-budget').hidden = known || !props.fitted
    if (!known) {
        props.value = ''
        return
    }
    const timed = milliseconds().every((ms) => ms !== null)
    if (!timed) unit = 'share'
    wanted.ms ??= timed ? milliseconds().at(-1) : null
    const drawn = scale()
    for (const radio of element.querySelectorAll('input[type=radio]')) {
        radio.name = group
        radio.checked = radio.value === unit
        radio.disabled = radio.value === 'ms' && !timed
        radio.parentElement.title = radio.disabled ? 'The worker\u2019s device is not calibrated: python -m ada.calibrate' : ''
    }
    const shown = Math.round(wanted[unit])
    const range = find('input[type=range]'), number = find('input[type=number]')
    Object.assign(range, { min: drawn.from, max: drawn.to, step: drawn.step })
    range.value = shown
    range.setAttribute('aria-valuetext', `${shown} ${drawn.name}; ${meaning(drawn)}`)
    Object.assign(number, { min: drawn.lowest, max: drawn.highest, step: 'any' })
    if (document.activeElement !== number) number.value = shown
    find('.unit').textContent = drawn.name
    const amount = (value) => unit === 'ms' ? ` ${Math.round(value)} ms` : ` ${Math.round(value)} %`
    mark('.minimum', 'minimum' + amount(drawn.minimum), drawn.minimum, drawn)
    mark('.full', 'full' + amount(drawn.full), drawn.full, drawn)
    find('.meaning').textContent = meaning(drawn)
    props.value = unit === 'ms' ? `${shown}ms` : String(shown / 100)
}

const take = (value) => {
    const { lowest, highest } = scale()
    if (Number.isFinite(value) && value > 0) wanted[unit] = Math.min(highest, Math.max(lowest, value))
    draw()
}

element.addEventListener('input', ({ target }) => {
    if (target.type === 'radio') {
        unit = target.value
        draw()
    } else {
        take(Number(target.value))
    }
})
element.addEventListener('focusout', draw) // a number that cannot be a budget gives way to the one that counts
watch(['budgets', 'fitted'], draw)
draw()
