// Diagnose: what the controller itself thinks is wrong, how the fleet hashes, and why one prompt is not found.
import { element, ask, badge, count, head, integers, notice, panel, problem, repeat, table, tokenField } from './dom.js';

export const title = 'Diagnose';
let end;
let text = '';

export function show(main) {
  const place = element('div', { 'aria-live': 'polite' });
  const answer = element('div', { 'aria-live': 'polite' });
  const field = tokenField('Tokens of the prompt', text, (now) => { text = now; });
  const form = element('form', { onsubmit: async (event) => {
    event.preventDefault();
    try {
      const tokens = integers(field.area.value);
      if (tokens.length === 0) throw new Error('There is no integer in the text above: paste token ids, not words.');
      answer.replaceChildren(...prompt(await ask('diagnose', { tokens })));
    } catch (error) {
      answer.replaceChildren(problem(error));
    }
  } }, field.field, element('button', { class: 'primary' }, 'Why?'), field.under);
  let said = null;
  const load = async (wanted) => {
    try {
      const report = await ask('diagnose');
      // Read aloud only when it changes.
      const now = JSON.stringify([report.reasons, report.hash_schemes]);
      if (wanted() && now !== said) place.replaceChildren(...fleet(report));
      said = now;
    } catch (error) {
      said = null;
      if (wanted()) place.replaceChildren(problem(error));
    }
  };
  main.append(head('Diagnose', 'What the controller finds wrong with the fleet, and how the fleet hashes prompts.', element('button', { type: 'button', onclick: () => { said = null; load(() => true); } }, 'Look again')),
    place, element('h2', {}, 'Why is a prompt not found?'), element('div', { class: 'card' }, form), answer);
  end = repeat(load, 4000);
}

export function hide() { end(); }

function fleet(report) {
  const schemes = report.hash_schemes;
  const well = report.reasons[0]?.startsWith('nothing is wrong');
  return [
    well ? notice('good', ['Nothing is wrong with the fleet as seen from here.']) : notice('warn', report.reasons),
    panel('Hash schemes', element('p', { class: 'soft' }, `How chunks are named is ${schemes.mode}; ${count(schemes.candidates)} candidates.`),
      schemes.confirmed.length === 0
        ? element('p', {}, 'None is confirmed yet: look up a prompt that some instance holds, and the one that fits is kept.')
        : table('Confirmed schemes', ['Algorithm', 'Root', 'Chunk size', 'Instances'], schemes.confirmed.map((one) => [element('code', {}, one.algorithm), element('code', {}, one.root), String(one.chunk_size), element('td', { class: 'full' }, one.instances.join(', '))]), true),
      schemes.unknown_for?.length && schemes.confirmed.length ? element('p', { class: 'warn' }, `Not known yet for ${schemes.unknown_for.join(', ')}.`) : null),
  ];
}

/** What was tried for one prompt: what found it first. */
function prompt(report) {
  const hits = report.tried.filter((one) => one.matches.length);
  return [
    element('div', { style: 'margin-top:.8rem' }, notice(hits.length ? 'good' : 'warn', report.reasons)),
    panel(`${count(report.tried.length)} hash schemes tried for ${count(report.n_tokens)} tokens`, hits.length
      ? table('Schemes that find it', ['Algorithm', 'Root', 'Chunk size', 'State', 'Found'], hits.map((one) => [
        element('code', {}, one.algorithm), element('code', {}, one.root), String(one.chunk_size), badge(one.confirmed ? 'good' : 'none', one.confirmed ? 'confirmed' : 'candidate'),
        element('td', { class: 'full' }, one.matches.map((match) => `${match.instance_id}: ${count(match.chunks)} chunks in ${match.location}`).join(', '))]), true)
      : element('p', { class: 'soft' }, 'None of them names a chunk that anybody holds.')),
  ];
}
