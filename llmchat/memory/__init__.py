"""What is kept to be found again: passages of documents and chats, by words and by meaning."""
