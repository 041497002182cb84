// This browser keeps the theme, not the session. The script runs before the page is painted.
"use strict";

(() => {
  const root = document.documentElement;

  function chosen() {
    try {
      return localStorage.getItem("theme") || "";
    } catch {
      return ""; // Storage may be forbidden. Then the theme is that of the device.
    }
  }

  function apply(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  apply(chosen());
  addEventListener("storage", () => apply(chosen()));

  addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("theme");
    if (!form) return;
    form.elements.theme.value = chosen();
    form.hidden = false;
    document.getElementById("theme-hint").hidden = true;
    form.addEventListener("change", () => {
      const theme = form.elements.theme.value;
      apply(theme);
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // Then the theme lasts until the next page.
      }
    });
  });
})();
