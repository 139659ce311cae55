// The parts of the page, shared by its modules. main.js creates them before anything uses them.

export const app = {
  /** From api.models(). */
  models: [],
  chats: null,
  drawers: null,
  panel: null,
  sidebar: null,
  view: null,
};

export const modelOf = (conversation) => app.models.find(({ id }) => id === conversation.model);
