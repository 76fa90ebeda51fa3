// Which view is shown, and the live stream. Views are modules with
// `title`, `show(main, live)` and, if they follow the stream, `sample(live)`; `hide()` ends timers.
import * as overview from './overview.js';
import * as fleet from './fleet.js';
import * as lookup from './lookup.js';
import * as actions from './actions.js';
import * as sync from './sync.js';
import * as diagnose from './diagnose.js';
import * as metrics from './metrics.js';
import { notice } from './dom.js';
import { menu } from './frame.js';
import { session } from './token.js';

const views = { overview, fleet, lookup, actions, sync, diagnose, metrics };
const main = document.getElementById('main');
const link = document.getElementById('link');
/** What the stream has told: samples oldest first (one hour at most) and the latency bounds. */
const live = { samples: [], bounds: [], connected: false };
let current = null;

menu('');

const GONE = 'The controller does not answer; trying again. What you see is what it said last.';
const CLOSED = 'The controller asks for a token: the button “Token” takes one.';
const offline = notice('bad', [GONE]);
offline.id = 'offline';
offline.hidden = true;
offline.setAttribute('role', 'alert');

function route() {
  const name = location.hash.slice(1).split('?')[0] || 'overview';
  const view = views[name] ?? overview;
  current?.hide?.();
  current = view;
  for (const anchor of document.querySelectorAll('#nav a')) {
    if (anchor.hash === `#${views[name] ? name : 'overview'}`) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
  }
  document.title = `${view.title} · KVAtlas`;
  main.replaceChildren(offline);
  view.show(main, live);
  scrollTo(0, 0);
}

async function connect() {
  const say = (on, refused) => {
    live.connected = on;
    link.textContent = on ? 'live' : refused ? 'no token' : 'offline';
    link.className = on ? 'on' : 'off';
    offline.querySelector('p').textContent = refused ? CLOSED : GONE;
    offline.hidden = on;
  };
  const known = await session();
  if (known?.refused) { say(false, true); return; }
  if (known) document.getElementById('version').textContent = known.version;
  const stream = new EventSource('live');
  stream.addEventListener('history', (event) => {
    const { bounds, samples } = JSON.parse(event.data);
    live.bounds = bounds;
    live.samples = samples;
    say(true);
    current?.sample?.(live);
  });
  stream.addEventListener('sample', (event) => {
    live.samples.push(JSON.parse(event.data));
    const hourAgo = live.samples.at(-1).at - 3600;
    while (live.samples.length > 2 && live.samples[0].at < hourAgo) live.samples.shift();
    say(true);
    current?.sample?.(live);
  });
  stream.onerror = () => {
    say(false);
    // Closed for good: refused, perhaps because the session ended.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}

const focus = () => main.focus({ preventScroll: true });
// The address after # names the view, so this link must not change it.
document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); focus(); });
addEventListener('hashchange', () => { route(); focus(); });
// "/" goes to the filter of the page, as in many tools.
addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.target.matches?.('input, textarea, select')) return;
  const search = main.querySelector('input[type=search]');
  if (search) { event.preventDefault(); search.focus(); }
});
route();
connect();
