"""The look of a report's page."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --pale: #595959; --line: #dcdcdc; --card: #f5f5f3;
  --good: #00694a; --bad: #a82f00; --note: #6b5300;
  --m0: #4d4d4d; --m1: #0072b2; --m2: #b35900; --m3: #007a5a; --m4: #b0518b; --m5: #2a8fc4; --m6: #8a6d00;
  --m7: #7a3fb0; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17181a; --ink: #ececec; --pale: #b0b0b0; --line: #3a3c40; --card: #212327;
    --good: #4fd0a5; --bad: #ff9466; --note: #e6c655;
    --m0: #c4c4c4; --m1: #56a8e8; --m2: #ee9a3a; --m3: #35c49a; --m4: #e58fc0; --m5: #9ad8f7; --m6: #e3cc4e;
  --m7: #c39af0; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --pale: #333; --line: #bbb; --card: #f2f2f2;
    --good: #00694a; --bad: #a82f00; --note: #6b5300;
    --m0: #4d4d4d; --m1: #0072b2; --m2: #b35900; --m3: #007a5a; --m4: #b0518b; --m5: #2a8fc4; --m6: #8a6d00;
  --m7: #7a3fb0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; overflow-wrap: anywhere; }
p, li, dd, figcaption { overflow-wrap: anywhere; }
p, figcaption, dd { max-width: 56rem; }
.verdicts li { max-width: 66rem; }
.lead { font-size: 1.12rem; }
.pale, figcaption, .caption { color: var(--pale); }
.caption, figcaption { font-size: .88rem; margin: .4rem 0 0; }
.verdicts { list-style: none; padding: 0; margin: 1rem 0; }
.verdicts > li { border-left: .35rem solid var(--line); background: var(--card); padding: .5rem .9rem;
  margin: .5rem 0; }
.verdicts > li.pass { border-color: var(--good); }
.verdicts > li.fail { border-color: var(--bad); }
.verdicts ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.verdict { font-weight: 700; text-transform: uppercase; font-size: .85rem; letter-spacing: .04em; }
.pass .verdict { color: var(--good); }
.fail .verdict { color: var(--bad); }
.note { color: var(--note); }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .35em; }
.legend { display: none; list-style: none; padding: 0; flex-wrap: wrap; gap: .2rem 1rem; font-size: .88rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1.5rem 2rem; }
.plots figure { margin: 0; min-width: 0; }
.scroll { overflow-x: auto; }
.plot { display: block; width: 100%; min-width: 29rem; max-width: 46rem; height: auto; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
.plot text { font-family: system-ui, sans-serif !important; }
table { border-collapse: collapse; width: max-content; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: .25rem 0 .25rem 1.4rem;
  border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--pale); font-weight: 600; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 600; white-space: normal; max-width: 18rem; overflow-wrap: break-word; }
th.words, td.words { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 5rem;
  max-width: 34rem; }
tr.group > * { border-top: 2px solid var(--pale); }
.scroll:focus-visible { outline: 2px solid var(--m1); }
pre { background: var(--card); padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
dl { display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr; gap: .35rem 1rem; font-size: .92rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.worst { display: flex; flex-wrap: wrap; gap: .5rem 2rem; padding: .75rem 0; border-bottom: 1px solid var(--line); }
.worst figure { margin: 0; position: relative; }
.asked { width: 9rem; }
.asked img, .asked .gap { border: 3px solid var(--pale); }
.file { font-size: .75rem; }
.row { margin: 0 0 .25rem; font-size: .88rem; color: var(--pale); }
.strip { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: .5rem; }
.strip figcaption { text-align: center; margin: .1rem 0 0; font-variant-numeric: tabular-nums; }
.worst img, .gap { display: block; height: 7rem; width: auto; min-width: 2.6rem; border-radius: 3px; }
.gap { width: 3.5rem; display: grid; place-items: center; text-align: center; font-size: .7rem; color: var(--pale);
  background: var(--card); }
.right img, .right .gap { border: 3px solid var(--good); }
.wrong img, .wrong .gap { border: 3px dashed var(--bad); }
.right figcaption { color: var(--good); }
.wrong figcaption { color: var(--bad); }
.new { position: absolute; top: 0; right: 0; background: var(--ink); color: var(--paper); font-size: .7rem;
  line-height: 1;
  padding: .15rem .3rem; border-radius: 0 3px 0 3px; }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
  .worst img, .gap { height: 5.2rem; }
  .legend { display: flex; }
  .plot { min-width: 24rem; }
  table { font-size: .8rem; }
  th, td { padding-left: .9rem; }
  tbody th { max-width: 9.5rem; }
}
@media print {
  @page { margin: 14mm 12mm; }
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  h2 { margin-top: 1.4rem; }
  h2, h3 { break-after: avoid; }
  .plots { display: block; }
  .plots figure { margin-bottom: 1.2rem; }
  .plot { min-width: 0; max-width: 13.5cm; }
  .scroll { overflow: visible; }
  table { font-size: 7.2pt; width: auto; }
  th, td { padding-left: .7rem; }
  th:first-child { position: static; }
  th.words, td.words { overflow-wrap: anywhere; }
  .worst img, .gap { height: 2.2cm; min-width: 0; }
  .asked { width: 2.6cm; }
  .worst { gap: .2rem .8rem; }
  .strip { gap: .25rem; }
  section, tr, figure, .worst, .verdicts > li { break-inside: avoid; }
  * { print-color-adjust: exact; }
}
"""
"""Light or dark as the reader's system is;
  black on white in print. The models' colours keep 3:1 to the page and differ
for those who do not see red or green (after Okabe and Ito, 2008)."""
