"""JavaScript of the page's events: what only the browser knows or can do, small functions of what Python returns."""

OPENED = """() => [{
    kept: sessionStorage.getItem('llava-chat'),
    shared: new URLSearchParams(location.search).get('chat'),
    narrow: window.innerWidth < 640,
}]"""
"""What a page is opened with: ids of the tab's conversation and of a link's, whether it is as narrow as a phone."""

KEEP = """(id) => {
    sessionStorage.setItem('llava-chat', id)
    const address = new URL(location.href)
    address.searchParams.delete('chat')
    history.replaceState(null, '', address)
}"""
"""Remember the id of the tab's conversation, which a link has begun, at most once."""

LINK = "(id) => id ? `${location.origin}${location.pathname}?chat=${id}` : ''"

DOWNLOAD = """(page) => {
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([page], {type: 'text/html'}))
    link.download = 'conversation.html'
    link.click()
    URL.revokeObjectURL(link.href)
}"""

STATUS = """
element.setAttribute('role', 'status')
setInterval(() => {
    const clock = element.querySelector('.clock')
    if (!clock) return
    clock.began ??= performance.now() - Number(clock.dataset.ms)
    clock.textContent = `${Math.round(performance.now() - clock.began)} ms`
}, 50)
"""
"""Of a line that says what happens: those who cannot see it hear it, but for its clock, which goes on by itself."""

NAME_FILES = """() => {
    const name = () => {
        for (const file of document.querySelectorAll('.question [role=listitem]')) file.setAttribute('role', 'group')
    }
    new MutationObserver(name).observe(document.body, {childList: true, subtree: true})
}"""
"""Gradio says that a question's files are items, of no list: screen readers may leave such an item out."""
