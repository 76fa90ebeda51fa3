// Diagnose: what the controller itself thinks is wrong, and how the fleet hashes.
import { element, ask, problem, table, count } from './dom.js';

export const title = 'Diagnose';

export async function show(main) {
  const place = element('div', {});
  main.append(element('button', { type: 'button', onclick: () => load(place) }, 'Look again'), place);
  load(place);
}

async function load(place) {
  try {
    const report = await ask('diagnose');
    const schemes = report.hash_schemes;
    place.replaceChildren(
      element('h2', {}, 'Findings'), element('ul', { class: 'reasons' }, report.reasons.map((reason) => element('li', {}, reason))),
      element('h2', {}, 'Hash schemes'), element('p', {}, `${schemes.mode}; ${count(schemes.candidates)} candidates.`),
      schemes.confirmed.length === 0
        ? element('p', { class: 'soft' }, 'None is confirmed yet: look up a prompt that some instance holds, and the one that fits is kept.')
        : table('Confirmed schemes', ['Algorithm', 'Root', 'Chunk size', 'Instances'], schemes.confirmed.map((one) => [one.algorithm, one.root, String(one.chunk_size), one.instances.join(', ')])),
      element('p', {}, 'Why is one prompt not found? Paste its tokens under ', element('a', { href: '#lookup' }, 'Lookup'), '.'));
  } catch (error) {
    place.replaceChildren(problem(error));
  }
}
