// The loading progress of models that answers wait for.

// The interval between two requests for the progress, in milliseconds.
const POLL_MS = 1000;

export class LoadingWatch {
  /**
   * waiting(): the runs whose answers have not started; refresh(): asks the server;
   * model(id): {name, state, loading_s, expected_s}; ondraw(run): called when progress changed.
   */
  constructor(parts) {
    Object.assign(this, parts, { watching: false });
  }

  /** Poll until no answer waits. */
  async start() {
    if (this.watching) return;
    this.watching = true;
    while (this.waiting().length) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      if (!this.waiting().length) break;
      await this.refresh();
      for (const run of this.waiting()) this.#show(run);
    }
    this.watching = false;
  }

  #show(run) {
    const { state, ...progress } = this.model(run.message.request.model.split("+")[0]);
    run.loading = state === "loading" ? progress : null;
    this.ondraw(run);
  }
}
