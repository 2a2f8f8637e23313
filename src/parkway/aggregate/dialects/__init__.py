"""Other protocols than OpenAI's chat, as translations: a request into a chat request, a chat answer back."""
