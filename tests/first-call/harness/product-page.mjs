// The product's page as a person sees it: what it shows, by the ids that its sources promise.
import { eventually } from './processes.mjs';

/// Names on the cards of the roster, one's own without "(you)", sorted.
export function roster(tab) {
  return tab.look(() => [...document.querySelectorAll('#roster .person')].map((card) => card.dataset.name).sort());
}

/// `connecting`, `in_call`, `reconnecting`, `lost` or `ended`, as the header marks it.
export function state(tab) {
  return tab.look(() => document.querySelector('#state')?.dataset.state ?? null);
}

/// Keeps every state that is shown in `selector` from now on, however short: who only looks now and then may miss one.
export function watchStates(tab, selector) {
  return tab.look((query) => {
    const seen = ((window.__states ??= {})[query] = []);
    const keep = (changes) => seen.push(...changes.map(({ target }) => target.dataset.state));
    const what = { subtree: true, attributes: true, attributeFilter: ['data-state'] };
    new MutationObserver(keep).observe(document.querySelector(query), what);
  }, selector);
}

export function seenStates(tab, selector) {
  return tab.look((query) => window.__states[query], selector);
}

export function peerId(tab) {
  return tab.look(() => window.__carillon.peer);
}

/// States of the program cards: `playing`, `quiet`, `reconnecting`, `ended`.
export function programs(tab) {
  return tab.look(() => [...document.querySelectorAll('#programs .program')].map((card) => card.dataset.state));
}

export function shows(tab, selector) {
  return eventually(`${tab.name} shows ${selector}`, () => tab.look((query) => {
    const element = document.querySelector(query);
    return element !== null && element.checkVisibility() && element.getBoundingClientRect().height > 0;
  }, selector));
}

/// How many lines the words of an element take.
export function lines(tab, selector) {
  return tab.look((query) => {
    const range = document.createRange();
    range.selectNodeContents(document.querySelector(query));
    return new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size;
  }, selector);
}

/// What a passing notice hides at either end of the page: a card on which it lies, above the dock, or the last card under a dock
/// that has grown by it. Looks in the moment in which the page shows it.
export function coveredByNotice(tab, text) {
  return tab.look((words) => {
    const [notice, dock] = [document.querySelector('#notice-line'), document.querySelector('.dock')];
    const show = (what) => window.__carillon.client.emit('problem', what);
    const problems = [];
    for (const end of ['top', 'bottom']) {
      show('');
      window.scrollTo(0, end === 'top' ? 0 : document.scrollingElement.scrollHeight);
      show(words);
      const [box, floor] = [notice.getBoundingClientRect(), dock.getBoundingClientRect().top];
      if (notice.innerText !== words || box.height < 10) problems.push(`${end}: no notice`);
      if (box.left < 0 || box.right > window.innerWidth || box.bottom > window.innerHeight) problems.push(`${end}: the notice leaves the window`);
      for (const card of document.querySelectorAll('.person, .program, .switch, .banner, .dock button')) {
        if (!card.checkVisibility()) continue;
        const { left, right, top, bottom } = card.getBoundingClientRect();
        const seen = card.closest('.dock') ? bottom : Math.min(bottom, floor);
        if (left < box.right && right > box.left && top < box.bottom && seen > box.top && seen > top) problems.push(`${end}: the notice covers ${card.className} ${card.innerText}`);
        if (end === 'bottom' && !card.closest('.dock') && bottom > floor) problems.push(`${end}: the dock covers ${card.className} ${card.innerText}`);
      }
    }
    show('');
    window.scrollTo(0, 0);
    return problems;
  }, text);
}

/// What is wrong with the layout at the present width: a page wider than the window, a control outside of it, a label
/// that does not fit into its button. Empty when all is well.
export function layoutProblems(tab, selectors) {
  return tab.look((wanted) => {
    const problems = [];
    const width = window.innerWidth;
    if (document.scrollingElement.scrollWidth > width) problems.push(`scrolls sideways: ${document.scrollingElement.scrollWidth} > ${width}`);
    for (const selector of wanted) {
      const element = document.querySelector(selector);
      if (!element?.checkVisibility()) {
        problems.push(`${selector} is not shown`);
        continue;
      }
      const box = element.getBoundingClientRect();
      if (box.width < 1 || box.height < 1) problems.push(`${selector} has no size`);
      if (box.left < -0.5 || box.right > width + 0.5) problems.push(`${selector} leaves the window: ${box.left} to ${box.right}`);
    }
    for (const button of document.querySelectorAll('button')) {
      if (!button.checkVisibility()) continue;
      if (button.scrollWidth > button.clientWidth + 1) problems.push(`the label of "${button.innerText}" is cut`);
      if (button.getBoundingClientRect().height < 32) problems.push(`"${button.innerText}" is too small to tap`);
    }
    return problems;
  }, selectors);
}
