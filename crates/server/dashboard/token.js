// The token: asked of the person when the controller wants one, kept for this tab only. Requests
// carry it as a header; the live stream cannot, so a session cookie is had in exchange for it.
import { element } from './dom.js';

const KEY = 'token';
const button = document.getElementById('key');
let asking = null;
let declined = false;

/** Headers that say who asks. */
export function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? bearer(token) : {};
}

const bearer = (token) => ({ authorization: `Bearer ${token}` });

/** Whether a refused request is worth another try: the person gave a token. `refused`: the answer. */
export async function another(refused) {
  const wanted = refused.headers.get('www-authenticate') ?? '';
  button.hidden = false;
  if (!wanted.startsWith('Bearer') || (declined && refused.status === 401)) return false;
  const said = wanted.includes('insufficient_scope') ? 'This needs the admin token.'
    : wanted.includes('invalid_token') ? 'The controller does not know this token.'
      : 'The controller asks for a token.';
  asking ??= dialog(said).finally(() => { asking = null; });
  return asking;
}

/**
 * Sees to it that the live stream may be opened, with a cookie if reading needs a token. Gives the
 * version of the controller, `refused` if it may not, null if nobody is there.
 */
export async function session() {
  try {
    let answer = await fetch('version', { headers: authorization() });
    if (answer.status === 401 && await another(answer)) answer = await fetch('version', { headers: authorization() });
    if (sessionStorage.getItem(KEY)) {
      button.hidden = false;
      await fetch('session', { method: 'POST', headers: authorization() });
    }
    return { refused: answer.status === 401, ...await answer.json() };
  } catch {
    // The stream will find out that nobody is there, and say so.
    return null;
  }
}

button.addEventListener('click', async () => {
  asking ??= dialog('Use another token.').finally(() => { asking = null; });
  if (await asking) location.reload();
});

/** Why a token does not do, or null if it does. */
async function fault(token) {
  try {
    const answer = await fetch('session', { method: 'POST', headers: bearer(token) });
    if (answer.ok) return null;
    return answer.status === 401 ? 'The controller does not know this token.' : `The controller answers ${answer.status}.`;
  } catch (error) {
    // A header can only carry plain characters.
    return error instanceof TypeError && /[^\x21-\x7e]/.test(token) ? 'This is no token.' : 'The controller does not answer.';
  }
}

function dialog(said) {
  return new Promise((resolve) => {
    const input = element('input', { type: 'password', autocomplete: 'off', required: true });
    const wrong = element('p', { class: 'bad', role: 'alert' });
    const box = element('dialog', { 'aria-label': 'Token' });
    const use = element('button', { type: 'submit', class: 'primary' }, 'Use it');
    const form = element('form', {
      onsubmit: async (event) => {
        event.preventDefault();
        const token = input.value.trim();
        // One at a time: the first one that does closes this.
        use.disabled = true;
        const why = await fault(token);
        use.disabled = false;
        if (why) {
          wrong.textContent = why;
          input.select();
          return;
        }
        sessionStorage.setItem(KEY, token);
        declined = false;
        button.hidden = false;
        box.close('given');
      },
    }, element('label', {}, 'Token', input), wrong,
    element('button', { type: 'button', onclick: () => box.close() }, 'Not now'), use);
    box.append(element('h2', {}, said), element('p', { class: 'soft' }, 'It is the read_token or admin_token of the controller’s configuration, and is kept for this tab only.'), form);
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
