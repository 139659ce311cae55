// How far the loading of a model is, for the answers that wait for it.

// How often the server is asked, in milliseconds.
const LOOK_MS = 1000;

export class LoadingWatch {
  /** waiting(): the runs whose answers have not begun; refresh(): asks the server; model(id): {name, state, loading_s, expected_s}; ondraw(run). */
  constructor(parts) {
    Object.assign(this, parts, { watching: false });
  }

  /** Look until no answer waits any more. */
  async start() {
    if (this.watching) return;
    this.watching = true;
    while (this.waiting().length) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      if (!this.waiting().length) break;
      await this.refresh();
      for (const run of this.waiting()) this.#show(run);
    }
    this.watching = false;
  }

  #show(run) {
    const { state, ...told } = this.model(run.message.request.model.split("+")[0]);
    run.loading = state === "loading" ? told : null;
    this.ondraw(run);
  }
}
