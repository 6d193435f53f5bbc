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
