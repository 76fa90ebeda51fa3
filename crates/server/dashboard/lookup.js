// Lookup: who holds which chunk of a prompt, how far each prefix reaches, and why not further.
import { element, ask, count, head, hue, integers, notice, problem, tile, tokenField } from './dom.js';
import { prepare } from './actions.js';

export const title = 'Lookup';
/** What was typed stays while other pages are shown. */
let text = '';
/** From here on chunks are drawn narrow. */
const MANY = 96;

export function show(main) {
  const field = tokenField('Tokens of the prompt', text, (now) => { text = now; });
  const answer = element('div', { 'aria-live': 'polite' });
  const form = element('form', { onsubmit: async (event) => {
    event.preventDefault();
    answer.replaceChildren(element('p', { class: 'soft' }, 'Looking…'));
    try {
      const tokens = integers(field.area.value);
      if (tokens.length === 0) throw new Error('There is no integer in the text above: paste token ids, not words.');
      const [picture, { reasons }] = await Promise.all([ask('lookup/chunks', { tokens }), ask('diagnose', { tokens })]);
      answer.replaceChildren(...draw(picture, reasons, field.area.value));
    } catch (error) {
      answer.replaceChildren(problem(error));
    }
  } }, field.field, element('button', { class: 'primary' }, 'Look up'), field.under);
  main.append(head('Lookup', 'Paste the token ids of a prompt to see which instances hold it, chunk by chunk, and how far.'), element('div', { class: 'card' }, form), answer);
}

function draw(picture, reasons, tokens) {
  const order = [...picture.instances].sort((a, b) => b.prefix_tokens - a.prefix_tokens);
  const best = order[0];
  const places = [...new Set(order.flatMap((one) => one.chunks.flatMap((cell) => (cell ?? []).map((copy) => copy[1]))))].sort();
  const share = best && picture.n_tokens ? best.prefix_tokens / picture.n_tokens : 0;
  const parts = [element('div', { class: 'cards', style: 'margin-top:.8rem' },
    tile('Prompt', `${count(picture.n_tokens)} tokens`, `${count(picture.n_chunks)} chunks of ${picture.chunk_size}`),
    tile('Longest prefix', `${(share * 100).toFixed(0)} %`, best?.prefix_tokens ? [`${count(best.prefix_tokens)} tokens in `, element('span', { class: 'whole' }, best.instance_id)] : 'nobody has the first chunk'),
    tile('Instances', count(order.filter((one) => one.prefix_tokens > 0).length), 'hold a prefix'))];
  if (order.length) {
    parts.push(element('h2', {}, 'Who holds it'), element('div', { class: 'legend' },
      places.map((location) => element('span', {}, element('i', { style: `--hue:${hue(location)}` }), location)),
      element('span', {}, element('i', { class: 'limit' }), 'end of the prefix'), element('span', {}, 'pale: behind a gap, of no use')));
  }
  for (const one of order) parts.push(holder(one, picture, tokens));
  if (picture.shown_chunks < picture.n_chunks) parts.push(element('p', { class: 'soft small' }, `The first ${count(picture.shown_chunks)} chunks are shown.`));
  parts.push(element('h2', {}, 'What this means'), notice(share >= 1 ? 'good' : 'warn', reasons), element('p', { class: 'soft small' }, `Hashed as ${picture.scheme}.`));
  return parts;
}

/** One instance: its strip, and what may be done with what it holds. */
function holder(one, picture, tokens) {
  const reach = Math.ceil(one.prefix_tokens / picture.chunk_size);
  const held = one.chunks.filter(Boolean).length;
  const cells = one.chunks.map((cell, i) => {
    const places = [...new Set((cell ?? []).map((copy) => copy[1]))].sort();
    const kinds = [cell && 'in', places.length > 1 && 'both', i >= reach && 'out', i === reach - 1 && 'end'].filter(Boolean);
    const who = cell ? cell.map(([rank, location]) => `rank ${rank} in ${location}`).join(', ') : 'not held';
    return element('i', { class: kinds.join(' '), style: places.length ? `--hue:${hue(places[0])};--hue2:${hue(places[1] ?? places[0])}` : false, title: `chunk ${i}, ${picture.hashes[i]}: ${who}` });
  });
  const location = one.chunks.find(Boolean)?.[0]?.[1];
  const deed = (name, command) => element('button', { type: 'button', class: 'small', 'aria-label': `${name} ${one.instance_id}`, onclick: () => prepare({ command, instance_id: one.instance_id, location, tokens, copy: true }) }, name);
  return element('section', { class: 'card holder', 'aria-label': `instance ${one.instance_id}` },
    element('div', {}, element('h3', {}, one.instance_id), element('div', { class: 'reach' }, element('b', {}, `${count(one.prefix_tokens)} of ${count(picture.n_tokens)} tokens`), held > reach ? `, and ${count(held - reach)} chunks behind a gap` : '')),
    element('div', { class: 'deeds' }, deed('Pin…', 'pin'), deed('Move…', 'move')),
    element('div', { class: `strip${cells.length > MANY ? ' many' : ''}`, role: 'img', 'aria-label': `${held} of ${cells.length} chunks held, unbroken prefix of ${reach}` }, cells));
}
