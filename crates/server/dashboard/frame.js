// What the dashboard and the description of the endpoints share: the menu and the theme.
import { icon } from './icons.js';

const PAGES = { overview: 'Overview', fleet: 'Fleet', lookup: 'Lookup', actions: 'Actions', sync: 'Sync', diagnose: 'Diagnose', metrics: 'Metrics' };

/** Fills the menu; `before` stands before the # of the dashboard's pages. */
export function menu(before) {
  const link = (href, name, title) => {
    const anchor = document.createElement('a');
    anchor.href = href;
    anchor.append(icon(name), title);
    return anchor;
  };
  const api = link('docs', 'api', 'API');
  api.className = 'api';
  document.getElementById('nav').append(...Object.entries(PAGES).map(([name, title]) => link(`${before}#${name}`, name, title)), api);
  if (before) api.setAttribute('aria-current', 'page');
}

const button = document.getElementById('theme');
function theme(name) {
  document.documentElement.dataset.theme = name;
  button.replaceChildren(icon(name === 'dark' ? 'sun' : 'moon'));
}
theme(localStorage.getItem('theme') ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
button.addEventListener('click', () => {
  const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  localStorage.setItem('theme', next);
  theme(next);
});
