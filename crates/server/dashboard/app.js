// The page's frame: which view is shown, the live stream, the theme. Views are modules with
// `title`, `show(main, live)` and, if they follow the stream, `sample(live)`; `hide()` ends timers.
import * as overview from './overview.js';
import * as fleet from './fleet.js';
import * as lookup from './lookup.js';
import * as actions from './actions.js';
import * as sync from './sync.js';
import * as diagnose from './diagnose.js';
import * as metrics from './metrics.js';
import { element } from './dom.js';
import { session } from './token.js';

const views = { overview, fleet, lookup, actions, sync, diagnose, metrics };
const main = document.getElementById('main');
const link = document.getElementById('link');
/** What the stream has told: samples oldest first (one hour at most) and the latency bounds. */
const live = { samples: [], bounds: [], connected: false };
let current = null;

for (const [name, view] of Object.entries(views)) {
  document.getElementById('nav').append(element('a', { href: `#${name}` }, view.title));
}

function route() {
  const name = location.hash.slice(1).split('?')[0] || 'overview';
  const view = views[name] ?? overview;
  current?.hide?.();
  current = view;
  for (const anchor of document.querySelectorAll('#nav a')) {
    const here = anchor.hash === `#${name}`;
    if (here) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
  }
  document.title = `${view.title} · KVAtlas`;
  main.replaceChildren(element('h1', {}, view.title));
  view.show(main, live);
}

async function connect() {
  await session();
  const stream = new EventSource('live');
  const say = (on, text) => {
    live.connected = on;
    link.textContent = text;
    link.className = on ? 'on' : 'off';
  };
  stream.addEventListener('history', (event) => {
    const { bounds, samples } = JSON.parse(event.data);
    live.bounds = bounds;
    live.samples = samples;
    say(true, 'live');
    current?.sample?.(live);
  });
  stream.addEventListener('sample', (event) => {
    live.samples.push(JSON.parse(event.data));
    const hourAgo = live.samples.at(-1).at - 3600;
    while (live.samples.length > 2 && live.samples[0].at < hourAgo) live.samples.shift();
    say(true, 'live');
    current?.sample?.(live);
  });
  stream.onerror = () => {
    say(false, 'the controller does not answer; trying again');
    // Closed for good: refused, perhaps because the session ended.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}

function theme(name) {
  document.documentElement.dataset.theme = name;
}
const stored = localStorage.getItem('theme');
theme(stored ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
document.getElementById('theme').addEventListener('click', () => {
  const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  localStorage.setItem('theme', next);
  theme(next);
});
addEventListener('hashchange', () => {
  route();
  main.focus({ preventScroll: true });
});
route();
connect();
