"""How the sweep's page looks."""

STYLE = """
:root { --ink: #1d2733; --soft: #5c6a7a; --line: #dde3ea; --blue: #2b5fb3; --wash: #f5f7fa; --warn: #a4541c; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
header { background: #16263f; color: #fff; padding: 2.2rem 0 1.6rem; }
header h1 { margin: 0 0 .3rem; font-size: 1.75rem; font-weight: 650; }
header p { margin: .15rem 0; color: #c9d4e4; }
header a { color: #fff; margin-right: 1.2rem; text-decoration: none; border-bottom: 1px solid #6d86ad; }
header nav { margin-top: 1rem; }
header > div, main { max-width: 1240px; margin: 0 auto; padding: 0 1.5rem; }
main { padding-bottom: 4rem; }
h2 { margin: 2.8rem 0 .6rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); font-size: 1.4rem; }
h3 { margin: 1.9rem 0 .4rem; font-size: 1.08rem; }
li { max-width: 100ch; }
.note { color: var(--soft); font-size: .9rem; margin: .3rem 0 .6rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.3rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; background: var(--wash);
  min-width: 11rem; flex: 1; }
.card b { display: block; font-size: 1.5rem; font-weight: 650; color: var(--blue); line-height: 1.25; }
.card span { color: var(--soft); font-size: .87rem; }
.falls { border-left: 4px solid #d98a3d; background: #fdf6ee; padding: .7rem 1.1rem; border-radius: 0 6px 6px 0;
  margin: 1rem 0; }
.falls h3 { margin: 0 0 .3rem; color: var(--warn); }
.falls h4 { margin: .6rem 0 .1rem; font-size: .93rem; }
.falls ul { margin: .1rem 0 .2rem; padding-left: 1.2rem; columns: 3 18rem; }
.falls li { break-inside: avoid; font-size: .92rem; }
.fine { border-left-color: #3a8f5c; background: #f0f8f3; }
.fine h3 { color: #2b6b45; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .32rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--wash); border-bottom: 2px solid var(--line); font-weight: 600; }
tbody tr:hover { background: #f8fafc; }
td small { color: var(--soft); }
td.fallen { background: #fdeedd; }
td.right { background: #eaf6ee; }
td.wrong { background: #fdecec; }
th { white-space: normal; }
.named td:nth-child(2), .named th:nth-child(2) { text-align: left; }
tr.last td { font-weight: 600; border-top: 2px solid var(--line); }
figure { margin: .8rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .88rem; max-width: 90ch; margin-top: .3rem; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .45rem .9rem; }
summary { cursor: pointer; color: var(--blue); font-weight: 550; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 1rem; }
.example { display: flex; gap: 1rem; border: 1px solid var(--line); border-radius: 8px; padding: .9rem;
  align-items: flex-start; }
.example img { width: 136px; height: auto; border: 1px solid var(--line); border-radius: 4px;
  image-rendering: pixelated; flex: none; }
.example h4 { margin: 0 0 .15rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .04em;
  color: var(--soft); }
.example p { margin: 0 0 .3rem; white-space: pre-line; font-size: .9rem; }
.example table { font-size: .8rem; }
.example th, .example td { padding: .18rem .45rem; white-space: normal; }
code { background: var(--wash); border: 1px solid var(--line); border-radius: 4px; padding: .1rem .35rem;
  font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 640px) { .examples { grid-template-columns: 1fr; } .example { flex-direction: column; } }
@media print { details { border: 0; } header { color: #000; background: none; } header p { color: #333; } }
"""
