/* A click on a heading of a benchmark's table sorts its rows: by the first number of a cell, else by its text. */
document.addEventListener("DOMContentLoaded", () => {
  if (!location.pathname.includes("/benchmarks/")) return;
  const keyOf = (row, column) => {
    const text = row.cells[column]?.textContent.trim() ?? "";
    const number = parseFloat(text.replace(/^[<>~]\s*/, ""));
    return { text, number, empty: text === "" };
  };
  const order = (a, b) => {
    if (a.empty !== b.empty) return a.empty ? 1 : -1;
    const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
    return numbers ? a.number - b.number : a.text.localeCompare(b.text);
  };
  for (const table of document.querySelectorAll(".bd-article table")) {
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    const sort = (head, column) => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const filled = rows.filter((row) => !keyOf(row, column).empty);
      const empty = rows.filter((row) => keyOf(row, column).empty);
      filled.sort((a, b) => order(keyOf(a, column), keyOf(b, column)) * (up ? 1 : -1));
      table.tBodies[0].append(...filled, ...empty);
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      head.addEventListener("click", () => sort(head, column));
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head, column));
    });
  }
});
