// Light or dark before anything is drawn: what was chosen here last, else what the system says.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("mmbench-theme"); } catch { /* a browser may keep nothing for files */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
