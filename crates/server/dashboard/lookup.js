// Lookup: who holds which chunk of a prompt, how far each prefix reaches, and why not further.
import { element, ask, problem, count, integers } from './dom.js';

export const title = 'Lookup';

export function show(main) {
  const text = element('textarea', { id: 'tokens', placeholder: '{"tokens": [1, 2, 3]} or any list of integers' });
  const answer = element('div', { 'aria-live': 'polite' });
  const form = element('form', { onsubmit: async (event) => {
    event.preventDefault();
    answer.replaceChildren(element('p', { class: 'soft' }, 'looking'));
    try {
      const tokens = integers(text.value);
      if (tokens.length === 0) throw new Error('there is no integer in the text above');
      const picture = await ask('lookup/chunks', { tokens });
      const reasons = (await ask('diagnose', { tokens })).reasons;
      answer.replaceChildren(...draw(picture, reasons));
    } catch (error) {
      answer.replaceChildren(problem(error));
    }
  } }, element('label', { class: 'wide' }, 'Tokens of the prompt', text), element('button', { class: 'primary' }, 'Look up'));
  main.append(form, answer);
}

function draw(picture, reasons) {
  const places = [...new Set(picture.instances.flatMap((one) => one.chunks.flatMap((cell) => (cell ?? []).map((copy) => copy[1]))))];
  const kind = (location) => ['', ' b', ' c'][places.indexOf(location) % 3];
  const colors = ['var(--bar)', 'var(--bar2)', 'var(--bar3)'];
  const parts = [
    element('h2', {}, `${count(picture.n_tokens)} tokens, ${count(picture.n_chunks)} chunks of ${picture.chunk_size}`),
    element('p', { class: 'soft' }, `hashed as ${picture.scheme}${picture.shown_chunks < picture.n_chunks ? `; the first ${picture.shown_chunks} chunks are shown` : ''}`),
    element('div', { class: 'legend' }, places.map((location, i) => element('span', {}, element('i', { style: `background:${colors[i % 3]}` }), location)), places.length ? element('span', { class: 'soft' }, 'pale: behind the end of the prefix') : null),
  ];
  const order = [...picture.instances].sort((a, b) => b.prefix_tokens - a.prefix_tokens);
  for (const one of order) {
    const reach = Math.ceil(one.prefix_tokens / picture.chunk_size);
    parts.push(element('section', { 'aria-label': `instance ${one.instance_id}` },
      element('h2', {}, `${one.instance_id}: ${count(one.prefix_tokens)} of ${count(picture.n_tokens)} tokens`),
      element('div', { class: 'strip', role: 'img', 'aria-label': `${one.chunks.filter(Boolean).length} of ${one.chunks.length} chunks held, unbroken prefix of ${reach}` },
        one.chunks.map((cell, i) => element('i', {
          class: `${cell ? `in${kind(cell[0][1])}` : ''}${i >= reach ? ' out' : ''}${i === reach - 1 ? ' end' : ''}`,
          title: `chunk ${i}, ${picture.hashes[i]}: ${cell ? cell.map(([rank, location]) => `rank ${rank} in ${location}`).join(', ') : 'not held'}`,
        })))));
  }
  parts.push(element('h2', {}, 'What this means'), element('ul', { class: 'reasons' }, reasons.map((reason) => element('li', {}, reason))));
  return parts;
}
