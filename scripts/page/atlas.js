'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement, main = document.getElementById('atlas');

// Text is only ever text: names come from CSVs.
function element(tag, attributes = {}, ...children) {
  const node = tag === 'svg' || element.svg.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined).map(child => typeof child === 'number' ? String(child) : child));
  return node;
}
element.svg = new Set(['path', 'g', 'line', 'text', 'title']);

const card = (title, ...children) => element('section', { class: 'card' }, element('h2', {}, title), ...children);
const number = (x, digits = 3) => x === null || x === undefined ? '' : String(Number(x.toPrecision(digits)));
const count = (n, what) => `${n} ${what}${n === 1 ? '' : 's'}`;
const seconds = x => x >= 1 ? number(x) + ' s' : x >= 1e-3 ? number(x * 1e3) + ' ms' : number(x * 1e6) + ' us';
const dark = () => root.dataset.theme === 'dark';
const hue = family => data.families[family][dark() ? 1 : 0];

// What is chosen stands in the address: a link shows the same.
const chosen = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
function choose(name, value) {
  if (value === '' || value === undefined) delete chosen[name]; else chosen[name] = value;
  history.replaceState(null, '', '#' + new URLSearchParams(chosen));
  draw();
}
function select(name, label, options) {
  const values = options.map(o => Array.isArray(o) ? o : [o, o]);
  if (!values.some(([value]) => String(value) === chosen[name])) chosen[name] = String(values[0][0]);
  return element('label', {}, label + ' ', element('select', { id: 'choose-' + name, onchange: e => choose(name, e.target.value) },
    ...values.map(([value, text]) => element('option', { value, selected: String(value) === chosen[name] }, String(text)))));
}
function search(label) {
  const box = element('input', { id: 'choose-find', type: 'search', value: chosen.find || '', placeholder: 'name',
    oninput: e => { choose('find', e.target.value); const again = document.getElementById('choose-find'); again.focus(); again.setSelectionRange(99, 99); } });
  return element('label', {}, label + ' ', box);
}
const families = () => [['', 'all'], ...Object.keys(data.families)];
const kinds = () => [['', 'all'], ...new Set(data.variants.map(v => v.exactness).filter(Boolean))];
const shown = () => data.variants.map((v, i) => [v, i]).filter(([v]) => (!chosen.family || v.family === chosen.family) &&
  (!chosen.kind || v.exactness === chosen.kind) && (!chosen.find || (v.name + ' ' + v.label).toLowerCase().includes(chosen.find.toLowerCase())));

// A table whose headings sort, and that can be downloaded as it is shown.
function sortable(id, heads, rows, file) {
  const at = heads.findIndex(h => h.key === chosen.sort);
  const value = row => row[at].sort ?? row[at].text;
  if (at >= 0) rows = [...rows].sort((a, b) => (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0) * (chosen.down ? -1 : 1));
  const sort = key => { chosen.down = chosen.sort === key && !chosen.down ? '1' : ''; if (!chosen.down) delete chosen.down; choose('sort', key); };
  const table = element('table', { id, class: 'map' },
    element('thead', {}, element('tr', {}, ...heads.map(h => element('th', { class: h.class, scope: 'col',
      'aria-sort': h.key === chosen.sort ? (chosen.down ? 'descending' : 'ascending') : null }, element('button', { type: 'button', onclick: () => sort(h.key) }, h.text))))),
    element('tbody', {}, ...rows.map(row => element('tr', {}, ...row.map(cell => element('td', { class: cell.class, style: cell.style, title: cell.title }, cell.node ?? cell.text))))));
  const quoted = text => /^[=+@]|[",\n]/.test(text) ? '"' + (/^[=+@]/.test(text) ? "'" : '') + text.replaceAll('"', '""') + '"' : text;
  const lines = [heads.map(h => h.text), ...rows.map(row => row.map(cell => cell.text))].map(line => line.map(quoted).join(',')).join('\n') + '\n';
  const link = element('a', { download: file, href: 'data:text/csv;charset=utf-8,' + encodeURIComponent(lines) }, 'Download this table');
  return [element('div', { class: 'scroll' }, table), element('p', { class: 'note' }, link)];
}
const name = v => ({ class: 'word', text: v.label, sort: v.label, title: v.name,
  node: element('span', {}, element('span', { class: 'swatch', style: 'background:' + hue(v.family) }), v.label) });
// Green is the good end; strength by distance from the middle.
const shade = (good, strength) => `background: color-mix(in srgb, ${good ? '#1a8a4a' : '#c62828'} ${Math.round(8 + 42 * Math.min(1, strength))}%, var(--card))`;
const empty = { class: 'none', text: '', sort: Infinity };

function crossing(found, lengths) {
  if (!found) return empty;
  const [star, says, shortest, longest] = found;
  const text = says.startsWith('undecided') ? '?' : star === 0 ? '≤ ' + shortest : star > 1e17 ? '> ' + longest : String(Math.round(star));
  const place = star === 0 ? 0 : star > 1e17 ? 1 : Math.log(star / lengths[0]) / Math.log(lengths[lengths.length - 1] / lengths[0] || 2);
  return { text, title: says, sort: star, style: text === '?' ? '' : shade(place < 0.5, Math.abs(place - 0.5) * 2) };
}
function ratio(x) {
  return x === null || x === undefined ? empty : { text: number(x) + 'x', sort: x, style: shade(x < 1, Math.abs(Math.log2(x)) / 3) };
}
function roof(x) {
  return x === null || x === undefined ? empty : { text: number(x, 2), sort: x, style: shade(x >= 0.5, Math.abs(x - 0.5) * 2) };
}

function drawCase() {
  const what = [['crossover', 'from which N it is ahead of full'], ['ratio', 'time over full'], ['roof', 'fraction of the roof'],
    ...(data.pass === 'decode' ? [['tokens', 'tokens a second']] : [])];
  const controls = element('div', { class: 'choices' }, select('map', 'map', what),
    chosen.map === 'crossover' ? null : select('n', data.pass === 'decode' ? 'context' : 'N', data.lengths), select('family', 'family', families()), select('kind', 'kind', kinds()), search('variant'));
  const at = data.lengths.indexOf(Number(chosen.n ?? data.lengths[0]));
  const cell = (m, v) => {
    if (chosen.map === 'crossover') return crossing(data.crossings[m][v], data.lengths);
    const figures = data.figures[m][v][at];
    if (!figures) return empty;
    if (chosen.map === 'tokens') return figures[2] === null ? empty : { text: number(figures[2]), sort: figures[2] };
    return chosen.map === 'ratio' ? ratio(figures[0]) : roof(figures[1]);
  };
  const heads = [{ key: 'variant', text: 'variant', class: 'word' }, { key: 'skill', text: 'skill' }, ...data.machines.map(m => ({ key: m.slug, text: m.title, class: 'machine' }))];
  const rows = shown().map(([v, i]) => [name(v), data.skill[i] === null ? empty : { text: number(data.skill[i]), sort: data.skill[i] }, ...data.machines.map((_, m) => cell(m, i))])
    .filter(row => row.slice(2).some(one => one !== empty));
  const notes = { crossover: 'The shortest length from which the variant stays faster than full attention in the same file; ≤ and > are the ends of what was measured, ? is within the noise. Hover for the interval.',
    ratio: 'Time over that of full attention in the same file of the same machine: below 1 is faster.', roof: "The machine's own least time for this work over the time taken.",
    tokens: 'Of a machine as a whole: rates depend on the machine, ratios to full say more of the variant.' };
  main.replaceChildren(card(what.find(([key]) => key === chosen.map)[1], controls, ...sortable('map', heads, rows, 'atlas.csv'), element('p', { class: 'note' }, notes[chosen.map])),
    card('Machines', element('ul', {}, ...data.machines.map(m => element('li', {}, element('a', { href: `machine-${m.slug}.html` }, m.title))))));
  document.getElementById('subtitle').textContent = `${count(data.machines.length, 'machine')}, ${count(data.variants.length, 'variant')}, N=${data.lengths[0]}..${data.lengths[data.lengths.length - 1]}`;
}

// Logarithmic lines of one figure against N.
function lines(held, figure, words) {
  const width = 900, height = 420, left = 70, right = 30, bottom = 30, points = [];
  for (const [v, i] of shown()) {
    const own = held.figures[i].map((f, k) => [held.lengths[k], f ? f[figure] : null]).filter(([, y]) => y !== null && y > 0);
    if (own.length) points.push([v, own]);
  }
  if (!points.some(([, own]) => own.length > 1)) return element('p', { class: 'note' }, 'No variant chosen has this figure at two lengths.');
  const ys = points.flatMap(([, own]) => own.map(p => p[1])), low = Math.min(...ys), high = Math.max(...ys);
  const x = n => left + (width - left - right) * (Math.log(n / held.lengths[0]) / (Math.log(held.lengths[held.lengths.length - 1] / held.lengths[0]) || 1));
  const y = t => 10 + (height - bottom - 10) * (1 - Math.log(t / low) / (Math.log(high / low) || 1));
  const svg = element('svg', { class: 'lines', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'figures against N' });
  for (const n of held.lengths) svg.append(element('line', { class: 'grid', x1: x(n), x2: x(n), y1: 10, y2: height - bottom }), element('text', { x: x(n), y: height - 10, 'text-anchor': 'middle' }, n));
  for (let k = 0; k <= 4; ++k) {
    const t = low * (high / low) ** (k / 4);
    svg.append(element('line', { class: 'grid', x1: left, x2: width - right, y1: y(t), y2: y(t) }), element('text', { x: left - 6, y: y(t) + 4, 'text-anchor': 'end' }, words(t)));
  }
  for (const [v, own] of points) {
    const group = element('g', { tabindex: 0, onmouseenter: e => e.currentTarget.classList.add('near'), onmouseleave: e => e.currentTarget.classList.remove('near') },
      element('path', { stroke: hue(v.family), d: own.map(([n, t], k) => (k ? 'L' : 'M') + x(n).toFixed(1) + ' ' + y(t).toFixed(1)).join('') }),
      element('title', {}, v.label + ': ' + own.map(([n, t]) => `N=${n} ${words(t)}`).join(', ')));
    svg.append(group);
  }
  return svg;
}

function drawMachine() {
  const cases = data.cases.map((c, i) => [i, c.title]);
  const choice = select('case', 'case', cases), held = data.cases[Number(chosen.case)];
  const what = [['time', 'time'], ['ratio', 'time over full'], ['roof', 'fraction of the roof'], ...(held.pass === 'decode' ? [['tokens', 'tokens a second']] : [])];
  const controls = element('div', { class: 'choices' }, choice, select('figure', 'show', what), select('family', 'family', families()), select('kind', 'kind', kinds()), search('variant'));
  const figure = { time: 0, ratio: 1, roof: 2, tokens: 3 }[chosen.figure], words = figure === 0 ? seconds : x => number(x) + (figure === 1 ? 'x' : '');
  const heads = [{ key: 'variant', text: 'variant', class: 'word' }, { key: 'ahead', text: 'ahead of full from N' }, ...held.lengths.map(n => ({ key: 'n' + n, text: 'N=' + n }))];
  const cell = f => !f || f[figure] === null ? empty : figure === 1 ? ratio(f[1]) : figure === 2 ? roof(f[2]) :
    { text: words(f[figure]) + (f[5] ? ' ~' : ''), sort: f[figure], title: f[5] ? 'unstable: the interval of the median is wider than 10 %' : '' };
  const rows = shown().filter(([, i]) => held.figures[i].some(Boolean)).map(([v, i]) => [name(v), crossing(held.crossings[i], held.lengths), ...held.figures[i].map(cell)]);
  const facts = [['processor', data.cpu], ['cores', data.cores], ['caches', data.caches], ['instruction sets', data.isas], ['FMA', data.fma_gflops && number(data.fma_gflops) + ' GFLOP/s'],
    ['read bandwidth', data.read_gbs && number(data.read_gbs) + ' GB/s'], ['exponentials', data.exp_gexps && number(data.exp_gexps) + ' G/s'], ['measured', data.dates.join(', ')], ['commits', data.commits.join(', ')]];
  main.replaceChildren(card('Figures', controls, element('div', { class: 'scroll' }, lines(held, figure, words)), ...sortable('figures', heads, rows, data.slug + '.csv'),
      element('p', { class: 'note' }, element('a', { href: held.slug + '.html' }, 'This case on all machines'))),
    card('Machine', element('dl', { class: 'facts' }, ...facts.filter(([, v]) => v).flatMap(([k, v]) => [element('dt', {}, k), element('dd', {}, v)]))),
    card('Files', element('ul', {}, ...data.files.map(f => element('li', {}, element('a', { href: `data/${data.slug}/${encodeURIComponent(f)}`, download: true }, f)))),
      element('ul', {}, ...data.notes.map(n => element('li', {}, n + '.')))));
  document.getElementById('subtitle').textContent = `${count(data.cells, 'cell')} in ${count(data.files.length, 'file')}`;
}

function drawIndex() {
  const heads = ['machine', 'cores', 'caches', 'FMA, GFLOP/s', 'read, GB/s', 'cells', 'measured'].map(text => ({ key: text, text, class: text === 'machine' ? 'word' : '' }));
  const plain = (text, sort) => ({ text: String(text ?? ''), sort: sort ?? text ?? '' });
  const rows = data.machines.map(m => [{ class: 'word', text: m.title, node: element('a', { href: `machine-${m.slug}.html` }, m.title) }, plain(m.cores), plain(m.caches),
    plain(number(m.fma_gflops), m.fma_gflops), plain(number(m.read_gbs), m.read_gbs), plain(m.cells), plain(m.dates[m.dates.length - 1])]);
  const passes = [['', 'all'], ...new Set(data.cases.map(c => c.pass))];
  const cases = data.cases.filter(c => (!chosen.pass || c.pass === chosen.pass) && (!chosen.find || c.title.toLowerCase().includes(chosen.find.toLowerCase())));
  main.replaceChildren(
    card('Cases', element('p', { class: 'note' }, 'Crossovers, ratios to full attention and fractions of the roof, of all machines that measured the case.'),
      element('div', { class: 'choices' }, select('pass', 'pass', passes), search('case')),
      element('ul', { id: 'cases' }, ...cases.map(c => element('li', {}, element('a', { href: c.slug + '.html' }, c.title), ` (${count(c.machines, 'machine')}, ${count(c.variants, 'variant')}, ${count(c.lengths, 'length')})`)))),
    card('Machines', ...sortable('machines', heads, rows, 'machines.csv'), element('p', { class: 'note' }, "Times are compared on a machine's own page only.")),
    ...(data.passed.length ? [card('Left out', element('ul', {}, ...data.passed.map(n => element('li', {}, n))))] : []));
  document.getElementById('subtitle').textContent = `${count(data.machines.length, 'machine')}, ${count(data.cases.length, 'case')}`;
}

function draw() { ({ index: drawIndex, case: drawCase, machine: drawMachine })[data.kind](); }
root.dataset.theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
document.getElementById('theme').addEventListener('click', () => { root.dataset.theme = dark() ? 'light' : 'dark'; draw(); });
addEventListener('hashchange', () => { for (const key of Object.keys(chosen)) delete chosen[key]; Object.assign(chosen, Object.fromEntries(new URLSearchParams(location.hash.slice(1)))); draw(); });
draw();
