'use strict';
// Everything shown comes from one JSON block that report.py wrote: rows by column, crossovers, training rows, context.
const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);

const shapes = ['circle', 'triangle', 'rect', 'rectRot', 'star', 'crossRot', 'rectRounded', 'cross'];
const dashes = [[], [6, 3], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2, 1, 2, 1, 2], [1, 2], [7, 2, 1, 2]];

// ---- rows ----
const columns = {};
for (const [name, column] of Object.entries(data.columns))
  columns[name] = column.words ? column.codes.map(c => column.words[c]) : column;
const rows = columns.name.map((_, i) => Object.fromEntries(Object.keys(columns).map(c => [c, columns[c][i]])));
for (const row of rows) row.command = row.command.replaceAll('\u0001', data.command_stem);

const names = Object.keys(data.variants);
const families = Object.keys(data.families);
// Implementations of a variant share colour and shape, and differ in their dashes.
const nativeOf = name => name.replace(/^([^:@]*)@[^:]*/, '$1');
for (const family of families) {
  const members = names.filter(name => data.variants[name].family === family);
  const kinds = [...new Set(members.map(nativeOf))];
  for (const name of members) {
    const kind = kinds.indexOf(nativeOf(name)), alike = members.filter(other => nativeOf(other) === nativeOf(name));
    data.variants[name].shape = shapes[kind % shapes.length];
    data.variants[name].dash = dashes[(kind + alike.indexOf(name)) % dashes.length];
  }
}

const state = { axes: { ...data.start }, hidden: new Set(), relative: false, bubbleN: null, bubbleY: data.bubble, inputsN: null, task: null };
const dark = () => document.documentElement.dataset.theme === 'dark';
const colour = name => data.families[data.variants[name].family][dark() ? 1 : 0];
const label = name => data.variants[name].label;
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const inGroup = (row, except) => data.axes.every(axis => axis === except || row[axis] === state.axes[axis]);
const shown = name => !state.hidden.has(name);

// ---- words ----
const unit = (value, units) => {
  for (const [name, scale] of units) if (Math.abs(value) >= scale) return `${+(value / scale).toPrecision(3)} ${name}`;
  const [name, scale] = units[units.length - 1];
  return `${+(value / scale).toPrecision(3)} ${name}`;
};
const seconds = v => v == null ? '' : unit(v, [['s', 1], ['ms', 1e-3], ['µs', 1e-6], ['ns', 1e-9]]);
const bytes = v => v == null ? '' : unit(v, [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10], ['B', 1]]);
const fixed = digits => v => v == null ? '' : v.toFixed(digits);
const percent = v => v == null ? '' : `${(100 * v).toFixed(0)} %`;
const times = v => v == null ? '' : `${+v.toPrecision(3)}×`;
const axisWord = (axis, value) => axis === 'causal' ? (value ? 'yes' : 'no') : String(value);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// ---- the drawer: a row and the command that repeats it ----
function facts(row) {
  const parts = [`${label(row.name)}, N=${row.n}`, row.status === 'ok' ? `${seconds(row.time_median_s)} (${seconds(row.time_ci_low_s)} .. ${seconds(row.time_ci_high_s)})` : `${row.status}: ${row.reason}`];
  if (row.relative != null) parts.push(`${times(row.relative)} the time of full`);
  if (row.tokens_per_s != null) parts.push(`${+row.tokens_per_s.toPrecision(3)} tokens/s`, `state ${bytes(row.state_bytes)}`);
  if (row.memory_bytes != null) parts.push(bytes(row.memory_bytes));
  if (row.roof_fraction != null) parts.push(`${percent(row.roof_fraction)} of the roof${row.roof_binds ? ` (${row.roof_binds})` : ''}`);
  if (row.fid_skill != null) parts.push(`skill ${row.fid_skill.toFixed(3)} on ${row.input}`);
  if (row.unstable) parts.push('unstable');
  return parts;
}
function showRow(row) {
  $('drawer').hidden = false;
  $('drawer-facts').textContent = row.accuracy != null ? taskFacts(row).join(' · ') : facts(row).join(' · ');
  $('drawer-command').textContent = row.command || '';
}
const taskFacts = row => [`${label(row.name)}, N=${row.n}`, `${row.task}: ${percent(row.accuracy)}`, row.floor != null ? `floor ${percent(row.floor)}` : '', row.verdict].filter(Boolean);

// ---- charts ----
const charts = {};
const keepTicks = values => axis => { axis.ticks = values().map(value => ({ value })); };
const lengths = () => [...new Set(rows.filter(r => inGroup(r) && r.status === 'ok').map(r => r.n))].sort((a, b) => a - b);
function thinned(values, most = 11) {
  const step = Math.ceil(values.length / most);
  return values.filter((_, i) => (values.length - 1 - i) % step === 0);
}
const nAxis = (values, title = 'N (sequence length)') => ({ type: 'logarithmic', min: Math.min(...values(), 1e9) / 1.1, max: Math.max(...values(), 1) * 1.1, title: { display: true, text: title }, afterBuildTicks: keepTicks(() => thinned(values())),
  ticks: { callback: v => v, maxRotation: 40, autoSkip: true } });
function logTicks(base, steps) {
  return axis => {
    const ticks = [], first = Math.floor(Math.log(axis.min) / Math.log(base)), last = Math.ceil(Math.log(axis.max) / Math.log(base));
    for (let e = first; e <= last; e++) for (const s of last - first <= 3 ? steps : [1]) {
      const value = s * base ** e;
      if (value >= axis.min * 0.999 && value <= axis.max * 1.001) ticks.push({ value });
    }
    const step = Math.ceil(ticks.length / 9);
    axis.ticks = ticks.filter((_, i) => i % step === 0);
  };
}

function lines(rowsOf, value, timed = false) {
  return names.filter(name => rowsOf(name).length).map(name => {
    const points = rowsOf(name).map(row => ({ x: row.n, y: value(row), row })).filter(p => p.y != null && Number.isFinite(p.y)).sort((a, b) => a.x - b.x);
    const c = colour(name);
    return { label: label(name), variant: name, data: points, borderColor: c, backgroundColor: c, borderDash: data.variants[name].dash,
      pointStyle: data.variants[name].shape, pointBackgroundColor: points.map(p => (timed && p.row.unstable) || p.row.hollow ? css('--card') : c),
      hidden: !shown(name), borderWidth: 1.7, clip: 8, pointRadius: 4, pointHoverRadius: 7, tension: 0 };
  }).filter(set => set.data.length);
}

// Written on the picture where there is nothing to draw, so that no chart is a silent blank.
const emptyWords = { id: 'emptyWords', afterDraw(chart) {
  if (chart.data.datasets.some((set, i) => chart.isDatasetVisible(i) && set.data.length)) return;
  const { ctx, chartArea: a } = chart;
  ctx.save(); ctx.fillStyle = css('--soft'); ctx.textAlign = 'center'; ctx.font = '14px system-ui';
  ctx.fillText('nothing measured for these filters', (a.left + a.right) / 2, (a.top + a.bottom) / 2); ctx.restore();
} };
const bubbleNames = { id: 'bubbleNames', afterDatasetsDraw(chart) {
  if (chart.canvas.id !== 'bubble') return;
  const { ctx, chartArea: area } = chart, taken = [];
  ctx.save(); ctx.font = '12px system-ui'; ctx.textBaseline = 'middle';
  chart.data.datasets.forEach((set, i) => {
    if (!set.variant || !chart.isDatasetVisible(i)) return;
    const point = chart.getDatasetMeta(i).data[0];
    if (!point) return;
    const width = ctx.measureText(set.label).width, r = set.data[0].r + 4;
    for (const [x, y] of [[point.x + r, point.y], [point.x - r - width, point.y], [point.x - width / 2, point.y - r - 4], [point.x - width / 2, point.y + r + 4]]) {
      const box = [x, y - 7, x + width, y + 7];
      if (box[0] < area.left || box[2] > area.right || box[1] < area.top - 8 || box[3] > area.bottom) continue;
      if (taken.some(t => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
      taken.push(box); ctx.fillStyle = set.borderColor; ctx.fillText(set.label, x, y); break;
    }
  });
  ctx.restore();
} };

function tooltipLines(item) {
  const row = item.raw.row;
  if (!row) return item.dataset.label;
  const parts = row.accuracy != null ? taskFacts(row) : facts(row);
  return parts;
}
function wrap(text, width) {
  const out = [''];
  for (const word of text.split(' ')) (out[out.length - 1] + word).length > width ? out.push(word + ' ') : out[out.length - 1] += word + ' ';
  return out;
}

function draw(id, description, type, datasets, scales) {
  const ink = css('--ink'), soft = css('--soft'), line = css('--line');
  for (const scale of Object.values(scales)) {
    scale.grid = { color: line, borderColor: line };
    scale.ticks = { color: soft, ...scale.ticks };
    if (scale.title) scale.title.color = soft;
  }
  const canvas = $(id);
  if (data.missing[id]) {  // for the whole file: no choice of a reader's would draw it
    if (!canvas.hidden) canvas.after(element('p', { class: 'note missing' }, data.missing[id]));
    canvas.hidden = true;
    return;
  }
  canvas.tabIndex = 0;
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `${description}. Arrow keys walk through the points.`);
  if (charts[id]) {
    charts[id].data.datasets = datasets;
    Object.assign(charts[id].options, { scales });
    charts[id].options.plugins.tooltip.bodyColor = charts[id].options.plugins.tooltip.titleColor = ink;
    charts[id].options.plugins.tooltip.backgroundColor = css('--back');
    charts[id].update('none');
    return;
  }
  charts[id] = new Chart(canvas, { type, data: { datasets }, plugins: [emptyWords, bubbleNames], options: {
    animation: false, maintainAspectRatio: false, parsing: id === 'inputs' || id === 'bubble' ? undefined : false, interaction: { mode: 'nearest', intersect: false }, scales,
    onHover: (_, found, chart) => { const raw = found.length && chart.data.datasets[found[0].datasetIndex].data[found[0].index]; if (raw && raw.row) showRow(raw.row); },
    plugins: { legend: { display: false }, tooltip: { filter: item => !!item.raw.row, displayColors: false, bodyColor: ink, titleColor: ink, backgroundColor: css('--back'),
      borderColor: css('--accent'), borderWidth: 1, callbacks: { title: () => '', label: tooltipLines, afterBody: items => items.length && items[0].raw.row.command && window.innerWidth > 760 ? ['', ...wrap(items[0].raw.row.command, 70)] : [] } } } } });
  canvas.addEventListener('keydown', event => walk(charts[id], event));
}

function walk(chart, event) {
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  if (!moves[event.key]) return;
  event.preventDefault();
  const sets = chart.data.datasets.map((set, i) => i).filter(i => chart.isDatasetVisible(i) && chart.data.datasets[i].data.some(p => p.row));
  if (!sets.length) return;
  const at = chart.at || { set: 0, point: -1 };
  const [ds, dp] = moves[event.key];
  at.set = (at.set + ds + sets.length) % sets.length;
  const points = chart.data.datasets[sets[at.set]].data;
  at.point = Math.min(points.length - 1, Math.max(0, at.point + dp));
  chart.at = at;
  const active = [{ datasetIndex: sets[at.set], index: at.point }];
  chart.setActiveElements(active);
  chart.tooltip.setActiveElements(active, { x: 0, y: 0 });
  chart.update('none');
  showRow(points[at.point].row);
}

function drawAll() {
  const group = rows.filter(row => inGroup(row));
  const full = Object.fromEntries(group.filter(r => r.name === data.reference && r.time_median_s).map(r => [r.n, r.time_median_s]));
  for (const row of group) row.relative = row.time_median_s && full[row.n] ? row.time_median_s / full[row.n] : null;
  const of = name => group.filter(row => row.name === name && row.status === 'ok');
  const n = () => lengths();

  draw('time', 'Time against sequence length, both logarithmic', 'line', lines(of, r => state.relative ? r.relative : r.time_median_s, true),
    { x: nAxis(n), y: { type: 'logarithmic', title: { display: true, text: state.relative ? 'time over full attention' : 'time' }, afterBuildTicks: logTicks(10, [1, 2, 5]), ticks: { callback: state.relative ? times : seconds } } });
  draw('memory', 'Peak memory against sequence length, both logarithmic', 'line', lines(of, r => r.memory_bytes == null ? null : Math.max(4096, r.memory_bytes)),
    { x: nAxis(n), y: { type: 'logarithmic', title: { display: true, text: 'memory beyond inputs and output' }, afterBuildTicks: logTicks(4, [1]), ticks: { callback: bytes } } });
  draw('roof', 'Fraction of the roof against sequence length', 'line', lines(of, r => r.roof_fraction, true),
    { x: nAxis(n), y: { min: 0, suggestedMax: 1, title: { display: true, text: 'fraction of the roof' }, ticks: { callback: percent } } });
  const skill = r => r.fid_skill == null ? null : Math.max(-1, r.fid_skill);
  draw('skill', 'Fidelity skill against sequence length', 'line', lines(of, skill), { x: nAxis(n), y: { suggestedMin: 0, max: 1, title: { display: true, text: 'skill' }, ticks: { callback: fixed(1) } } });
  drawSteps(of, n);
  drawInputs(skill);
  drawBubble(group);
  drawTask();
  tables(group);
  drawAnswer(group);
  drawTypes();
  drawImplementations(group);
  keepDrawn();
}

// Where the filters choose decodes, whose N is the context.
function drawSteps(of, n) {
  const any = names.some(name => of(name).some(row => row.state_bytes != null));
  $('token-card').hidden = $('state-card').hidden = !any;
  if (!any) return;
  const axis = (title, base, steps, callback) => ({ x: nAxis(n, 'context (tokens)'), y: { type: 'logarithmic', title: { display: true, text: title }, afterBuildTicks: logTicks(base, steps), ticks: { callback } } });
  draw('token-time', 'Time per token against context, both logarithmic', 'line', lines(of, r => r.token_s, true), axis('time per token', 10, [1, 2, 5], seconds));
  draw('state-bytes', 'Bytes of state against context, both logarithmic', 'line', lines(of, r => r.state_bytes), axis('state', 4, [1], bytes));
}

function choose(select, values, current, word = String) {
  const chosen = values.includes(current) ? current : values[values.length - 1];
  select.replaceChildren(...values.map(v => element('option', { value: v, selected: v === chosen ? '' : null }, word(v))));
  select.disabled = values.length < 2;
  return chosen;
}

// Unless one was chosen, the longest length with at least four fifths of the cells that any length has.
function chooseLength(select, measured, chosen) {
  const cells = n => measured.filter(r => r.n === n).length;
  const ns = [...new Set(measured.map(r => r.n))].sort((a, b) => a - b);
  const most = Math.max(...ns.map(cells));
  return choose(select, ns, ns.includes(chosen) ? chosen : ns.filter(n => cells(n) >= 0.8 * most).pop());
}

// A file's shape is its own: where an input has no cell of the shape that the filters choose, those of its own stand for it.
function drawInputs(skill) {
  const near = across(['input', 'batch', 'heads', 'kv_heads', 'head_dim', 'value_dim', 'kv', 'causal']).filter(row => row.fid_skill != null);
  const alike = new Set(near.filter(row => inGroup(row, 'input')).map(row => row.input));
  const candidates = near.filter(row => !alike.has(row.input) || inGroup(row, 'input'));
  const inputs = [...new Set(candidates.map(r => r.input))].sort();
  const inputsN = chooseLength($('inputs-n'), candidates, state.inputsN);
  const of = name => candidates.filter(r => r.name === name && r.n === inputsN);
  const sets = lines(of, skill).map(set => ({ ...set, data: set.data.map(p => ({ x: p.row.input, y: p.y, row: p.row })).sort((a, b) => inputs.indexOf(a.x) - inputs.indexOf(b.x)) }));
  draw('inputs', 'Fidelity skill by input', 'line', sets, { x: { type: 'category', labels: inputs, offset: true, title: { display: true, text: 'input' } },
    y: { suggestedMin: 0, max: 1, title: { display: true, text: 'skill' }, ticks: { callback: fixed(1) } } });
}

// What a variant learned of a task, at the trained length nearest to n: the mean over its points; null where it was not trained.
function learned(task, name, n) {
  const trained = data.train.filter(t => t.task === task && t.name === name && t.accuracy != null);
  if (!trained.length) return null;
  const nearest = Math.min(...trained.map(t => Math.abs(Math.log(t.n / n))));
  const used = trained.filter(t => Math.abs(Math.log(t.n / n)) === nearest), mean = key => used.reduce((sum, t) => sum + t[key], 0) / used.length;
  return { accuracy: mean('accuracy'), floor: mean('floor'), hollow: used.some(t => t.hollow) };
}
const ALL_TASKS = 'all tasks';
// Tasks whose control, full attention, passed: the others say nothing of anybody.
const judged = n => data.tasks.filter(task => { const full = learned(task, data.reference, n); return full && !full.hollow; });

// What the bubble chart has upwards: { of(row): a number or null, hollow(row), title, floor, note }.
function upwards(which, n) {
  if (which === 'fid_skill') return { of: row => row.fid_skill, hollow: () => false, title: `skill on ${state.axes.input}`, floor: null, note: '' };
  const tasks = which === ALL_TASKS ? judged(n) : [which], points = name => tasks.map(task => learned(task, name, n));
  const of = ({ name }) => {
    const found = points(name);
    if (!found.length || found.some(p => !p)) return null;
    return which === ALL_TASKS ? found.reduce((sum, p) => sum + (p.accuracy - p.floor) / (1 - p.floor), 0) / found.length : found[0].accuracy;
  };
  const trained = 'that of the trained length nearest to N';
  if (which === ALL_TASKS) return { of, hollow: () => false, title: `mean skill of ${tasks.length} tasks`, floor: 0, note: ` Skill of a task is (accuracy - floor) / (1 - floor), ${trained}, of ${tasks.join(', ') || 'no task'}: the tasks whose control passed, of ${data.tasks.length}.` };
  const control = learned(which, data.reference, n);
  return { of, hollow: row => points(row.name)[0].hollow, title: `accuracy, ${which}`, floor: control ? control.floor : null,
    note: ` Accuracy is ${trained}. Dotted: the floor that needs no attention.` + (control && control.hollow ? ' Hollow: inconclusive, since full attention missed its bar.' : '') };
}

function drawBubble(group) {
  const bubbleN = chooseLength($('bubble-n'), group.filter(r => r.relative), state.bubbleN);
  const ys = ['fid_skill', ...data.tasks, ...(data.tasks.length > 1 ? [ALL_TASKS] : [])];
  state.bubbleY = choose($('bubble-y'), ys, ys.includes(state.bubbleY) ? state.bubbleY : 'fid_skill', y => y === 'fid_skill' ? `skill on ${state.axes.input}` : y === ALL_TASKS ? y : `task ${y}`);
  const up = upwards(state.bubbleY, bubbleN);
  const here = group.filter(r => r.n === bubbleN && r.relative);
  const points = here.map(row => ({ row, x: 1 / row.relative, y: up.of(row) })).filter(p => p.y != null);
  const left = here.filter(row => up.of(row) == null).map(row => label(row.name));
  const largest = Math.max(1, ...points.map(p => p.row.memory_bytes || 0));
  const narrow = $('bubble').parentElement.clientWidth < 600;
  const sets = points.map(p => ({ label: label(p.row.name), variant: p.row.name, hidden: !shown(p.row.name), borderColor: colour(p.row.name), backgroundColor: up.hollow(p.row) ? 'transparent' : colour(p.row.name) + '66',
    data: [{ x: p.x, y: Math.max(-1, p.y), row: p.row, r: 4 + (narrow ? 16 : 28) * Math.sqrt((p.row.memory_bytes || 0) / largest) }] }));
  sets.sort((a, b) => b.data[0].r - a.data[0].r);
  const front = [];
  for (const p of points.filter(p => shown(p.row.name) && data.variants[p.row.name].family !== 'baseline').sort((a, b) => b.x - a.x || b.y - a.y))
    if (!front.length || p.y > front[front.length - 1].y) front.push({ x: p.x, y: Math.max(-1, p.y) });
  sets.push({ type: 'line', label: 'Pareto front', data: front, stepped: 'before', borderColor: css('--accent'), borderDash: [5, 4], borderWidth: 1.5, pointRadius: 0, order: 99 });
  const [least, most] = [Math.min(...points.map(p => p.x), 1) / 1.4, Math.max(...points.map(p => p.x), 1) * 1.8];
  if (up.floor != null) sets.push({ type: 'line', label: 'floor', data: [{ x: least, y: up.floor }, { x: most, y: up.floor }], borderColor: css('--soft'), borderDash: [2, 4], borderWidth: 1.2, pointRadius: 0, order: 100 });
  draw('bubble', 'Accuracy against speed relative to full attention; bubble area is peak memory', 'bubble', sets,
    { x: { type: 'logarithmic', min: least, max: most, title: { display: true, text: `speed relative to ${data.reference} at N=${bubbleN} (right is faster)` }, afterBuildTicks: logTicks(10, [1, 2, 5]), ticks: { callback: times } },
      y: { suggestedMin: 0, suggestedMax: 1, grace: '8%', ticks: { callback: v => Math.abs(v) > 1.001 ? '' : v.toFixed(1) }, title: { display: true, text: up.title } } });
  $('bubble-note').textContent = `Bubble area: memory, the largest is ${bytes(largest)}. Dashed: Pareto front without the baselines, in steps: no variant was measured between its points.` + (left.length ? ` Not in the picture for want of this accuracy: ${left.join(', ')}.` : '') + up.note;
}

function drawTask() {
  $('task-card').hidden = !data.tasks.length;
  if (!data.tasks.length) return;
  state.task = choose($('task-name'), data.tasks, state.task || fullestTask());
  const trained = data.train.filter(t => t.task === state.task && data.variants[t.name]);
  const sets = lines(name => trained.filter(t => t.name === name), t => t.accuracy);
  const floor = [...new Map(trained.filter(t => t.floor != null).map(t => [t.n, { x: t.n, y: t.floor }])).values()].sort((a, b) => a.x - b.x);
  sets.push({ label: 'floor', data: floor, borderColor: css('--soft'), borderDash: [3, 4], borderWidth: 1.2, pointRadius: 0 });
  const n = () => [...new Set(trained.map(t => t.n))].sort((a, b) => a - b);
  draw('task', `Accuracy of trained models on ${state.task}`, 'line', sets, { x: nAxis(n), y: { min: 0, max: 1, title: { display: true, text: 'accuracy' }, ticks: { callback: percent } } });
}

// ---- tables ----
function table(id, heads, records, empty) {
  const node = $(id);
  if (!records.length) { node.replaceChildren(element('tbody', {}, element('tr', {}, element('td', { class: 'word' }, empty)))); return; }
  const sort = node.sort || (node.sort = { column: null, down: false });
  const body = () => {
    const head = heads[sort.column];
    const sorted = head ? [...records].sort((a, b) => {
      const [x, y] = [head.key(a), head.key(b)];
      if (x == null || y == null) return (x == null) - (y == null);  // what was not measured stays last
      return (sort.down ? -1 : 1) * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
    }) : records;
    return sorted.map(record => {
      const row = element('tr', record.command ? { tabindex: 0, onclick: () => showRow(record), onkeydown: e => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); showRow(record); } } } : {});
      row.append(...heads.map(h => element('td', { class: h.style }, h.text ? h.text(record) : String(h.key(record) ?? ''))));
      return row;
    });
  };
  const render = () => {
    const cells = heads.map((h, i) => element('th', { class: h.style === 'long' ? 'word' : h.style, scope: 'col', 'aria-sort': sort.column === i ? (sort.down ? 'descending' : 'ascending') : 'none' },
      element('button', { type: 'button', title: h.about, onclick: () => { sort.down = sort.column === i ? !sort.down : false; sort.column = i; render(); node.querySelectorAll('th button')[i].focus(); } }, h.head)));
    node.replaceChildren(element('thead', {}, element('tr', {}, ...cells)), element('tbody', {}, ...body()));
  };
  render();
}
const column = (head, key, text, style) => ({ head, key, text: text && (r => text(key(r))), style });
const word = (head, key, style = 'word') => ({ head, key, style });
// A column of the CSV; its heading tells what the file says of it.
const field = (head, name, text) => ({ ...column(head, r => r[name], text), about: data.about[name] });

function tables(group) {
  const visible = group.filter(r => shown(r.name));
  const ok = group.filter(r => r.status === 'ok' && data.variants[r.name].family !== 'baseline');
  const best = (list, key) => list.filter(r => key(r) != null).reduce((a, b) => a && key(a) <= key(b) ? a : b, null);
  const tell = (r, text) => r ? `${label(r.name)} (${text(r)})` : '';
  const relative = r => r.relative == null ? seconds(r.time_median_s) : `${times(r.relative)} full`;
  table('winners', [column('N', r => r.n), column('variants', r => r.count), word('fastest', r => r.any), word('fastest exact', r => r.exact), word('fastest with skill ≥ 0.9', r => r.skilled), word('least memory', r => r.memory)],
    lengths().map(n => {
      const here = ok.filter(r => r.n === n), time = r => r.time_median_s;
      return { n, count: new Set(here.map(r => r.name)).size, any: tell(best(here, time), relative), exact: tell(best(here.filter(r => r.exactness === 'exact'), time), relative),
        skilled: tell(best(here.filter(r => r.fid_skill >= 0.9), time), relative), memory: tell(best(here, r => r.memory_bytes), r => bytes(r.memory_bytes)) };
    }), 'nothing measured for these filters');

  const crossings = data.crossovers.filter(c => c.group.every((v, i) => v === state.axes[data.axes[i]]));
  const find = (name, reference, metric) => crossings.find(c => c.name === name && c.reference === reference && c.metric === metric);
  const pair = (head, reference, metric) => ({ head, style: 'word', key: r => r[reference + metric]?.order, text: r => r[reference + metric]?.says ?? '' });
  table('crossovers', [word('variant', r => label(r.name)), ...data.references.flatMap(against => ['time', 'memory'].map(metric => pair(`${metric}, against ${against}`, against, metric))),
    { head: 'time grows as', style: 'word', key: r => r.exponent?.exponent, text: r => r.exponent ? `N^${r.exponent.exponent.toFixed(2)} (${r.exponent.low.toFixed(2)}..${r.exponent.high.toFixed(2)})` : '' },
    { head: 'declared', style: 'word', key: r => r.exponent?.declared, text: r => r.exponent?.declared == null ? '' : `N^${r.exponent.declared} ${r.exponent.contract}` }],
    names.filter(name => shown(name) && group.some(r => r.name === name)).map(name => {
      const record = { name, exponent: data.exponents.find(e => e.name === name && e.group.every((v, i) => v === state.axes[data.axes[i]])) };
      for (const reference of data.references) for (const metric of ['time', 'memory']) record[reference + metric] = find(name, reference, metric);
      return record;
    }), 'no reference was measured');

  table('cells', [word('variant', r => label(r.name)), word('family', r => r.family), field('N', 'n'), field('time', 'time_median_s', seconds), column('over full', r => r.relative, times),
    column('± MAD', r => r.time_mad_s == null || !r.time_median_s ? null : r.time_mad_s / r.time_median_s, v => v == null ? '' : `${(100 * v).toFixed(1)} %`),
    field('roof', 'roof_fraction', percent), field('GFLOP/s', 'gflops_per_s', fixed(1)), column('memory', r => r.memory_bytes, bytes), field('peak RSS', 'peak_rss_bytes', bytes),
    field('skill', 'fid_skill', fixed(3)), field('error', 'err_relative', v => v == null ? '' : v.toExponential(1)), word('status', r => r.unstable ? 'unstable' : r.status)],
    visible, 'no cell for these filters and variants');
}

function fixedTables() {
  table('refused', [word('variant', r => label(r.name)), word('status', r => r.status), word('N', r => r.n), word('reason', r => r.reason, 'long'), column('cells', r => r.cells)], data.refused, 'every cell was measured');
  table('unstable', [word('variant', r => label(r.name)), column('N', r => r.n), word('where', r => r.where, 'long'), column('interval over median', r => r.width, percent)], data.unstable, 'none');
  $('caveats').replaceChildren(...data.caveats.map(c => element('li', {}, c)));
  document.querySelector('#summary ul').replaceChildren(...data.summary.map(s => element('li', {}, s)));
  $('subtitle').textContent = data.subtitle;
  $('context').replaceChildren(...data.context.map(({ title, facts: list }) => element('div', {}, element('h3', {}, title), element('dl', {}, ...list.flatMap(([k, v]) => [element('dt', {}, k), element('dd', {}, v)])))));
}

// ---- controls ----
function filters() {
  const nodes = [];
  for (const axis of data.axes) {
    const values = [...new Set(rows.map(r => r[axis]))].sort((a, b) => typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
    if (values.length < 2 && !data.always.includes(axis)) continue;
    const select = element('select', { id: `filter-${axis}`, onchange: e => { state.axes[axis] = values[e.target.selectedIndex]; legend(); drawAll(); } },
      ...values.map(v => element('option', { selected: v === state.axes[axis] ? '' : null }, axisWord(axis, v))));
    select.disabled = values.length < 2;
    nodes.push(element('label', { for: select.id }, axis.replace('_', ' ')), select);
  }
  $('filters').replaceChildren(...nodes);
}
function swatch(name) {
  const canvas = element('canvas', { width: 52, height: 24, 'aria-hidden': 'true', style: 'width:26px;height:12px' }), c = canvas.getContext('2d');
  c.scale(2, 2); c.strokeStyle = c.fillStyle = colour(name); c.lineWidth = 1.7; c.setLineDash(data.variants[name].dash);
  c.beginPath(); c.moveTo(0, 6); c.lineTo(26, 6); c.stroke(); c.setLineDash([]);
  Chart.helpers.drawPoint(c, { pointStyle: data.variants[name].shape, radius: 4, borderWidth: 1.5, rotation: 0 }, 13, 6);
  return canvas;
}
function toggle(list, on) {
  for (const name of list) on ? state.hidden.delete(name) : state.hidden.add(name);
  legend();
  drawAll();
}
function legend() {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  const here = new Set([...rows.filter(r => inGroup(r)).map(r => r.name), ...data.train.map(t => t.name)]);
  $('legend').replaceChildren(...families.map(family => {
    const members = names.filter(name => data.variants[name].family === family);
    return element('div', { class: 'family' },
      element('button', { type: 'button', 'data-key': `family ${family}`, style: `color:${colour(members[0])}`, title: 'show or hide the family', onclick: () => toggle(members, !members.some(shown)) }, family.replace('_', ' ')),
      ...members.map(name => element('button', { type: 'button', class: here.has(name) ? 'chip' : 'chip absent', 'data-key': name, 'aria-pressed': String(shown(name)), title: here.has(name) ? `${name} (shift-click: only this one and full)` : `${name} was not measured for these filters`,
        onclick: e => { if (e.shiftKey) { state.hidden = new Set(names.filter(n => n !== name && n !== data.reference)); toggle([], true); } else toggle([name], !shown(name)); } }, swatch(name), element('span', {}, label(name)))));
  }));
  if (focused) [...document.querySelectorAll('#legend [data-key]')].find(b => b.dataset.key === focused)?.focus();
}

function start() {
  document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  if (window.innerWidth <= 760) document.querySelector('#controls details').open = false;
  Chart.defaults.font.family = 'system-ui, sans-serif';
  filters();
  legend();
  fixedTables();
  drawAll();
  const turn = theme => { document.documentElement.dataset.theme = theme; legend(); drawAll(); };
  $('theme').onclick = () => turn(dark() ? 'light' : 'dark');
  let onScreen = 'light';  // paper is light, whatever the screen is
  addEventListener('beforeprint', () => { onScreen = document.documentElement.dataset.theme; if (dark()) turn('light'); });
  addEventListener('afterprint', () => { if (onScreen === 'dark') turn('dark'); });
  $('relative').onchange = e => { state.relative = e.target.checked; drawAll(); };
  $('show-all').onclick = () => toggle(names, true);
  $('show-none').onclick = () => toggle(names, false);
  $('show-exact').onclick = () => { state.hidden = new Set(names.filter(n => data.variants[n].exactness !== 'exact')); toggle([], true); };
  $('bubble-n').onchange = e => { state.bubbleN = +e.target.value; drawAll(); };
  $('bubble-y').onchange = e => { state.bubbleY = e.target.value; drawAll(); };
  $('answer-n').onchange = e => { state.answerN = +e.target.value; drawAll(); };
  $('answer-skill').onchange = e => { state.answerSkill = +e.target.value; drawAll(); };
  $('inputs-n').onchange = e => { state.inputsN = +e.target.value; drawAll(); };
  $('task-name').onchange = e => { state.task = e.target.value; drawAll(); };
  $('drawer-close').onclick = () => { $('drawer').hidden = true; };
  document.addEventListener('keydown', e => { if (e.key === 'Escape') $('drawer').hidden = true; });
  $('drawer-copy').onclick = () => {
    const range = document.createRange();
    range.selectNodeContents($('drawer-command'));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand('copy');  // navigator.clipboard does not exist on file:// pages
  };
}
start();
