'use strict';
// The answer at the top, and what compares across a filter: number types, implementations. Functions of page.js are at hand when these are called.

const SKILLS = [0.5, 0.8, 0.9, 0.95, 0.99];

// Of one sequence's next token where cells are steps, else of the run.
const decodes = row => row.pass === 'decode' && row.token_s != null;
const between = row => row.time_ci_low_s == null ? '' : ` (${seconds(row.time_ci_low_s)} to ${seconds(row.time_ci_high_s)})`;
const timeOf = row => decodes(row) ? `${seconds(row.token_s)} a token` : `${seconds(row.time_median_s)}${between(row)}`;
const quickest = list => list.reduce((a, b) => a && a.time_median_s <= b.time_median_s ? a : b, null);
const memoryOf = row => decodes(row) ? `keeps ${bytes(row.state_bytes)} of its context` : `takes ${bytes(row.memory_bytes)} beyond inputs and output`;

// Three sentences on the fastest within the skill, from where on it is that, and what it costs in memory.
function sentences(here, n, least) {
  const full = here.find(r => r.name === data.reference), place = `${full && decodes(full) ? 'context' : 'N'}=${n}`;
  const skilled = here.filter(r => r.fid_skill >= least), best = quickest(skilled), any = quickest(here);
  const over = r => full && r !== full ? `, ${times(r.time_median_s / full.time_median_s)} the time of ${data.reference}` : '';
  const says = name => data.crossovers.find(c => c.name === name && c.reference === data.reference && c.metric === 'time' && c.group.every((v, i) => v === state.axes[data.axes[i]]))?.says;
  const unasked = here.every(r => r.fid_skill == null && !r.fid_reason);  // --fidelity none
  const lacking = r => r.fid_skill == null ? (r.fid_reason ? 'whose distance to softmax attention says nothing' : 'whose skill was not measured') : `skill ${r.fid_skill.toFixed(2)}`;
  if (!best && unasked)
    return [`No skill was measured on ${state.axes.input} at ${place} (--fidelity rows does). The fastest is ${label(any.name)}: ${timeOf(any)}${over(any)}.`];
  if (!best) {
    const nearest = here.filter(r => r.fid_skill != null).reduce((a, b) => a && a.fid_skill >= b.fid_skill ? a : b, null);
    return [`Nothing that was measured reaches skill ${least} on ${state.axes.input} at ${place}${nearest ? `; the nearest is ${label(nearest.name)}, skill ${nearest.fid_skill.toFixed(2)}, in ${timeOf(nearest)}${over(nearest)}` : ''}.`,
      full ? '' : `${data.reference} was not measured: attn_sweep --variants ${data.reference} at the same lengths adds it.`].filter(Boolean);
  }
  const told = [`${label(best.name)} is the fastest with skill ${least} or more on ${state.axes.input} at ${place}: ${timeOf(best)}${over(best)}.`];
  if (!full) told.push(`${data.reference} was not measured: attn_sweep --variants ${data.reference} at the same lengths adds it.`);
  else if (best !== full) told.push(says(best.name) ? `Ahead of ${data.reference}: ${says(best.name)}.` : 'From which N it is ahead takes two lengths measured beside it.');
  else told.push(any === full ? 'Nothing that was measured is faster.' : `Faster with less: ${label(any.name)}, ${timeOf(any)}${over(any)}, ${lacking(any)}.`);
  const beside = full && best !== full ? ` ${data.reference} ${decodes(full) ? bytes(full.state_bytes) : bytes(full.memory_bytes)}.` : '';
  told.push(`${label(best.name)} ${memoryOf(best)}${beside ? ',' + beside : '.'}${full && best !== full && any !== best ? ` Fastest of all is ${label(any.name)}, ${lacking(any)}.` : ''}`);
  return told;
}

function drawAnswer(group) {
  const ok = group.filter(r => r.status === 'ok' && r.time_median_s != null && data.variants[r.name].family !== 'baseline');
  $('answer').hidden = !ok.length;
  if (!ok.length) return;
  state.answerN = chooseLength($('answer-n'), ok, state.answerN);
  state.answerSkill = +choose($('answer-skill'), SKILLS, state.answerSkill ?? 0.9);
  $('answer-words').replaceChildren(...sentences(ok.filter(r => r.n === state.answerN), state.answerN, state.answerSkill).map(s => element('p', {}, s)));
}

// Cells that agree with the filters but for these axes.
const across = axes => rows.filter(r => r.status === 'ok' && r.time_median_s != null && data.axes.every(a => axes.includes(a) || r[a] === state.axes[a]));

function drawTypes() {
  const cells = across(['dtype', 'kv_dtype']), plain = r => r.dtype === 'f32' && (r.kv_dtype ?? 'f32') === 'f32';
  const many = cells.some(r => !plain(r));
  $('types-card').hidden = !many;
  if (!many) return;
  const f32 = r => cells.find(o => plain(o) && o.name === r.name && o.n === r.n);
  table('types', [word('variant', r => label(r.name)), field('N', 'n'), word('Q', r => r.dtype), word('K and V', r => r.kv_dtype ?? r.dtype), field('time', 'time_median_s', seconds),
    column('over f32', r => f32(r) ? r.time_median_s / f32(r).time_median_s : null, times), word('products in', r => r.compute ?? ''), field('roof', 'roof_fraction', percent),
    column('storage error', r => r.storage_error || null, v => v == null ? '' : v.toExponential(1))],
    cells.filter(r => shown(r.name) && cells.some(o => o.name === r.name && !plain(o))), 'nothing for the variants chosen');
}

function drawImplementations(group) {
  const ok = group.filter(r => r.status === 'ok'), own = name => nativeOf(name);
  const several = ok.filter(r => ok.some(o => o.name !== r.name && own(o.name) === own(r.name)));
  $('implementations-card').hidden = !several.length;
  if (!several.length) return;
  const native = r => ok.find(o => o.name === own(r.name) && o.n === r.n);
  table('implementations', [word('variant', r => label(r.name)), field('N', 'n'), field('time', 'time_median_s', seconds), column('over its own', r => native(r) ? r.time_median_s / native(r).time_median_s : null, times),
    field('roof', 'roof_fraction', percent), column('memory', r => r.memory_bytes, bytes), field('error', 'err_relative', v => v == null ? '' : v.toExponential(1))],
    several.filter(r => shown(r.name)), 'nothing for the variants chosen');
}

// A curve needs two points: the card of one that has not, for these filters and any choice of variants, is not there.
function keepDrawn() {
  for (const id of ['time', 'memory', 'token-time', 'state-bytes', 'roof', 'skill', 'inputs', 'task']) {
    const chart = charts[id], card = $(id).closest('section');
    if (!chart || card.hidden) continue;
    const drawn = chart.data.datasets.some(set => set.data.filter(p => p.row).length > 1);
    card.classList.toggle('unneeded', !drawn);
  }
  const bubbles = charts.bubble?.data.datasets.filter(set => set.variant).length ?? 0;
  $('bubble').closest('section').classList.toggle('unneeded', bubbles < 2);
}

// The task that most is known of.
const fullestTask = () => data.tasks.reduce((a, b) => a != null && data.train.filter(t => t.task === a).length >= data.train.filter(t => t.task === b).length ? a : b, null);
