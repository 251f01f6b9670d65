"""What must never leave the process: masks API keys in text."""

from kwai_middleware._redaction.gaps import mask_end, mask_start
from kwai_middleware._redaction.masking import mask_json, mask_text
from kwai_middleware._redaction.shapes import MASK
from kwai_middleware._redaction.spellings import Keys

__all__ = ["MASK", "Keys", "mask_end", "mask_json", "mask_start", "mask_text"]
