import "./names.js";

// The page's language, for style sheets and screen readers: as in agent/page/language.py.
document.documentElement.lang = /^es\b/i.test(navigator.language) ? "es" : "en";

// Light or dark as the system is, until the patient chooses; Chainlit's configuration has no word
// for that, its page has.
if (!localStorage.getItem("vite-ui-theme")) localStorage.setItem("vite-ui-theme", "system");

// Chainlit tells the server what was picked in the composer only with the next message. This tells
// it at once, so that the settings panel shows the same (agent/page/choices.py).
(() => {
  let told = "";

  function tell() {
    const shown = {};
    for (const picker of document.querySelectorAll("[id^=mode-picker-trigger-]")) {
      shown[picker.id.replace("mode-picker-trigger-", "")] = picker.textContent.trim();
    }
    const now = JSON.stringify(shown);
    if (now !== told) window.postMessage({ "medraft-modes": shown }, window.location.origin);
    told = now;
  }

  // A pick ends with a click or with the Enter key, and React shows it a moment later.
  for (const event of ["click", "keyup"]) {
    window.addEventListener(event, () => requestAnimationFrame(() => setTimeout(tell)));
  }
})();

// A mark in an answer, [1], opens the source whose button stands below the answer
// (agent/page/sources.py).
document.addEventListener("click", (click) => {
  const mark = click.target.closest?.('a[href^="#source-"], a[href="#no-source"]');
  if (!mark) return;
  click.preventDefault();
  document.getElementById(decodeURIComponent(mark.hash.slice(1)))?.click();
});

// The list of conversations gives a new one its address. A phone does not show the list: there it
// gets its address here, so that a page that is loaded again shows what it showed
// (agent/page/conversation.py).
window.addEventListener("message", ({ data, source }) => {
  const thread = source === window && data?.["medraft-thread"];
  if (!thread || document.querySelector('[data-sidebar="sidebar"]')) return;
  if (window.location.pathname === "/") {
    window.history.replaceState(window.history.state, "", `/thread/${thread}`);
  }
});

// The link in the page's head to a conversation as a file is the same on every page: which
// conversation is shown stands in the address (agent/page/server/routes.py).
document.addEventListener(
  "click",
  (click) => {
    const link = click.target.closest?.('a[href^="/export"]');
    if (link) link.href = `/export/${window.location.pathname.split("/")[2] ?? ""}`;
  },
  true,
);

// Chainlit asks who is logged in whenever its window gets the focus, and leaves for the login if
// nobody answers, as while the server is started again: what was being written would be lost. It
// waits for an answer instead.
//
// And a page that is loaded at a conversation's address connects twice, the second time with the
// conversation, each time after the answer to a request for a cookie. Whichever connection comes
// last is kept: the requests go one after the other, or that without a conversation may be it.
{
  const send = window.fetch;
  let cookie = Promise.resolve();
  window.fetch = async (what, how) => {
    const { pathname } = new URL(what.url ?? what, window.location.href);
    if (pathname.endsWith("/set-session-cookie")) {
      const answer = cookie.then(() => send(what, how));
      cookie = answer.catch(() => {});
      return answer;
    }
    for (;;) {
      try {
        return await send(what, how);
      } catch (error) {
        if (pathname !== "/user" || how?.signal?.aborted) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  };
}
