"""OpenAI's Responses API: `/v1/responses` is translated to a chat request.

A request becomes a ChatRequest (`translation.py`), and its answer becomes items and events
(`output.py`). The whole conversation is stored, so that `previous_response_id` can continue it
(`store.py`).
"""
