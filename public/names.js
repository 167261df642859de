// Names for the buttons that Chainlit shows as an icon alone, for those who hear the page.
const NAMES = [
  ["#new-chat-button", "New conversation", "Nueva conversación"],
  ["#sidebar-trigger-button", "Earlier conversations", "Conversaciones anteriores"],
  ["#search-chats-button", "Search the conversations", "Buscar en las conversaciones"],
  ["#chat-settings-open-modal", "How to answer", "Cómo responder"],
  ["#chat-submit", "Send", "Enviar"],
  ["#stop-button", "Stop", "Detener"],
  ["button.edit-message", "Edit the message", "Editar el mensaje"],
  ["button:has(> .lucide-copy)", "Copy", "Copiar"],
  ["button:has(> .lucide-thumbs-up)", "Helpful", "Útil"],
  ["button:has(> .lucide-thumbs-down)", "Not helpful", "No útil"],
  ["button.rounded-full:has(> .lucide-arrow-down)", "To the end", "Ir al final"],
  ["button:has(> .lucide-arrow-left)", "Close", "Cerrar"],
];

function name() {
  const spanish = document.documentElement.lang === "es";
  for (const [selector, en, es] of NAMES) {
    for (const button of document.querySelectorAll(`${selector}:not([aria-label])`)) {
      button.setAttribute("aria-label", spanish ? es : en);
    }
  }
}

new MutationObserver(name).observe(document, { childList: true, subtree: true });
