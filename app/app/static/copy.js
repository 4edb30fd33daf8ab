// Copies a text; the Clipboard API needs HTTPS or this machine.

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const give = (event) => {
      event.clipboardData.setData("text/plain", text);
      event.preventDefault();
    };
    document.addEventListener("copy", give, { once: true });
    document.execCommand("copy");
  }
}
