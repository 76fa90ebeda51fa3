// The token: asked of the person when the controller wants one, kept for this tab only. Requests
// carry it as a header; the live stream cannot, so a session cookie is had in exchange for it.
import { element } from './dom.js';

const KEY = 'token';
let asking = null;
let declined = false;

/** Headers that say who asks. */
export function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** Whether a refused request is worth another try: the person gave a token. `refused`: the answer. */
export async function another(refused) {
  const wanted = refused.headers.get('www-authenticate') ?? '';
  if (!wanted.startsWith('Bearer') || (declined && refused.status === 401)) return false;
  const said = wanted.includes('insufficient_scope') ? 'This needs the admin token.'
    : wanted.includes('invalid_token') ? 'The controller does not know this token.'
      : 'The controller asks for a token.';
  asking ??= dialog(said).finally(() => { asking = null; });
  return asking;
}

/** Exchanges the token for the cookie that the live stream needs. */
export async function session() {
  try {
    const answer = await fetch('session', { method: 'POST', headers: authorization() });
    if (answer.status === 401 && await another(answer)) await session();
  } catch {
    // The stream will find out that nobody is there, and say so.
  }
}

function dialog(said) {
  return new Promise((resolve) => {
    const input = element('input', { type: 'password', autocomplete: 'off', required: true, 'aria-label': 'Token' });
    const box = element('dialog', { 'aria-label': 'Token' });
    const form = element('form', {
      onsubmit: (event) => {
        event.preventDefault();
        sessionStorage.setItem(KEY, input.value.trim());
        declined = false;
        box.close('given');
      },
    }, element('p', {}, said), input,
    element('p', {}, element('button', { type: 'submit' }, 'Use it'), ' ',
      element('button', { type: 'button', onclick: () => box.close() }, 'Not now')));
    box.append(form);
    box.addEventListener('close', () => {
      const given = box.returnValue === 'given';
      declined = !given;
      box.remove();
      resolve(given);
    });
    document.body.append(box);
    box.showModal();
  });
}
