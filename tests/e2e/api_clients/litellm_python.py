"""Asks the API through litellm; prints what came as JSON. Arguments: base URL, image file."""

import base64
import json
import sys
from pathlib import Path

import litellm

url = f"data:image/png;base64,{base64.b64encode(Path(sys.argv[2]).read_bytes()).decode()}"
question = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What word is written in the picture?"},
        {"type": "image_url", "image_url": {"url": url}},
    ],
}
settings = {"api_base": sys.argv[1], "api_key": "none", "model": "openai/shapes-H", "temperature": 0, "timeout": 300}
first = litellm.completion(messages=[question], max_tokens=30, **settings)
pieces = litellm.completion(messages=[question], stream=True, **settings)
streamed = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
chat = [question, first.choices[0].message.model_dump(), {"role": "user", "content": "Describe the picture."}]
again = litellm.completion(messages=chat, max_tokens=20, **settings)
extra = {"ignore_eos": True, "min_tokens": 40}
long = litellm.completion(messages=[question], max_tokens=40, extra_body=extra, **settings)
print(
    json.dumps(
        {
            "answer": first.choices[0].message.content,
            "streamed": "".join(streamed),
            "second answer": again.choices[0].message.content,
            "tokens with ignore_eos": long.usage.completion_tokens,
        }
    )
)
