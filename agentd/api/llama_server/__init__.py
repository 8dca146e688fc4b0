"""The endpoints of llama.cpp's own server, for editors and programs that speak to it rather than to OpenAI's API."""
