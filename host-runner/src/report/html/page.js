// Filters what is there already, names the cells of the pictures, and copies commands. Nothing depends on it.
'use strict';
(() => {
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const form = one('#filter'), main = one('main'), said = one('#f-count');
  const value = (id) => one(id)?.value.trim().toLowerCase() ?? '';
  const families = all('details.family').map((family) => ({
    family,
    name: family.dataset.family.toLowerCase(),
    rows: all('tbody tr', family).map((row) => ({ row, name: row.cells[0].textContent.toLowerCase(), cells: [...row.cells].slice(1) })),
    heads: [...one('thead tr', family).cells].slice(1),
  }));
  const total = families.reduce((sum, { rows }) => sum + rows.length, 0);
  const opened = new Set();

  const filter = () => {
    const words = value('#f-text').split(/\s+/).filter(Boolean);
    const mark = value('#f-mark'), only = value('#f-family'), column = value('#f-column');
    const active = words.length > 0 || mark || only || column;
    const named = (name) => words.every((word) => name.includes(word)) && (!only || name.split('.')[0] === only);
    if (mark) main.dataset.only = mark; else delete main.dataset.only;
    let shown = 0;
    for (const { family, rows, heads } of families) {
      let here = 0;
      for (const { row, name, cells } of rows) {
        const looked = column ? [cells[column - 1]] : cells;
        const fits = named(name) && looked.some((cell) => mark ? cell.className === mark : cell.className !== '');
        row.hidden = !fits;
        here += fits;
        cells.forEach((cell, index) => { cell.hidden = column !== '' && index !== column - 1; });
      }
      heads.forEach((head, index) => { head.hidden = column !== '' && index !== column - 1; });
      family.hidden = here === 0;
      // Few enough to be read at once; what the filter has opened it also closes.
      const open = active && here > 0 && (words.length > 0 || mark !== '' && mark !== 'pass' && mark !== 'skip');
      if (open && !family.open) { family.open = true; opened.add(family); }
      if (!open && opened.delete(family)) family.open = false;
      shown += here;
    }
    for (const item of all('article.case, details.waived, ul.names li[data-case]')) {
      const { marks, columns } = (item.matches('details.waived') ? one('article', item) : item).dataset;
      const fits = named(item.dataset.case.toLowerCase())
        && (!mark || !marks || marks.split(' ').includes(mark))
        && (!column || !columns || columns.split(' ').includes(column));
      item.hidden = !fits;
    }
    said.value = active ? `${shown} of ${total} cases` : `${total} cases`;
  };

  // The address remembers the filter, so that a view can be passed on: report.html#?verdict=fail
  const fields = { text: '#f-text', verdict: '#f-mark', family: '#f-family', column: '#f-column' };
  const remember = () => {
    const set = Object.entries(fields).map(([name, id]) => [name, value(id)]).filter(([, what]) => what);
    history.replaceState(null, '', set.length ? `#?${new URLSearchParams(set)}` : location.pathname);
  };
  const recall = () => {
    const set = new URLSearchParams(location.hash.slice(2));
    for (const [name, id] of Object.entries(fields)) if (one(id)) one(id).value = set.get(name) ?? '';
  };
  form.hidden = false;
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', () => { filter(); remember(); });
  form.addEventListener('reset', () => setTimeout(() => { filter(); remember(); }));
  if (location.hash.startsWith('#?')) recall();
  filter();

  // A link into something that is closed opens it.
  const reveal = () => {
    if (location.hash.startsWith('#?')) { recall(); filter(); return; }
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) {
      at.hidden = false;
      if (at.tagName === 'DETAILS') at.open = true;
    }
    target.scrollIntoView();
  };
  addEventListener('hashchange', reveal);
  reveal();

  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.hidden = true;
  tip.setAttribute('aria-hidden', 'true');
  document.body.append(tip);
  const WIDE = 64, PITCH = 9, LABEL = 14;
  const name = (event) => {
    const picture = event.target.closest?.('svg.picture');
    tip.hidden = true;
    if (!picture) return;
    const { rows, heads } = families.find(({ family }) => family.contains(picture));
    const box = picture.getBoundingClientRect(), scale = picture.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale , y = (event.clientY - box.top) * scale;
    // Lines are found by their numbers, which the runs set apart; a single line has none.
    const labels = all('text', picture).map((text) => ({ at: text.y.baseVal[0].value - 7, line: text.textContent - 1 }));
    if (labels.length) x -= LABEL;
    const found = labels.length === 0 ? { line: 0, at: 0 } : labels.find(({ at }) => y >= at && y < at + PITCH);
    const strips = Math.ceil(rows.length / WIDE), strip = found && labels.length
      ? labels.filter(({ line }) => line === found.line).findIndex(({ at }) => at === found.at)
      : Math.min(strips - 1, Math.floor(y / picture.viewBox.baseVal.height * strips));
    const row = found && x >= 0 && x < WIDE * PITCH ? rows[strip * WIDE + Math.floor(x / PITCH)] : undefined;
    if (!row) return;
    const cell = row.cells[found.line];
    const head = heads.length > 1 ? `, ${heads[found.line].textContent}` : '';
    tip.textContent = `${row.row.cells[0].textContent}${head}: ${cell.title || cell.className || 'not part of it'}`;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 16, innerHeight - height - 4))}px`;
  };
  addEventListener('pointermove', name, { passive: true });
  addEventListener('scroll', () => { tip.hidden = true; }, { passive: true });

  for (const command of all('pre.command')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'copy';
    button.textContent = 'Copy';
    button.addEventListener('click', async () => {
      getSelection().selectAllChildren(command);
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = 'Copied';
      } catch {
        button.textContent = 'Selected';
      }
    });
    command.after(button);
  }
})();
