"""OpenAI's Responses API: `/v1/responses` takes the path of a chat request.

A request becomes a ChatRequest (`translation.py`), and its answer items and events (`output.py`).
The whole conversation is stored, so that `previous_response_id` continues it (`store.py`).
"""
