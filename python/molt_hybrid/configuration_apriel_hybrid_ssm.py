"""Configuration of a hybrid of attention and Mamba layers, as molt exports it (model_type apriel_hybrid_ssm)."""
from transformers import MistralConfig, __version__

if tuple(int(part) for part in __version__.split(".")[:2]) < (5, 14):
    raise ImportError(f"models of type apriel_hybrid_ssm need transformers 5.14 or newer, found {__version__}")

# What a layer keeps while generating, by its letter, in transformers' words ("moe" is one that keeps nothing).
CACHES = {"t": "full_attention", "swa": "sliding_attention", "m2": "linear_attention", "i": "moe"}

SSM_DEFAULTS = {
    "d_xb": None,  # hidden_size
    "dt_rank": "auto",  # hidden_size / 16
    "d_conv": 4,
    "bias": False,
    "conv_bias": True,
    "dt_proj_bias": True,
    "repeat_kv_before_conv": True,
    "dt_min": 0.001,
    "dt_max": 0.1,
    "dt_init_floor": 1e-4,
}


class AprielHybridSSMConfig(MistralConfig):
    """
    hybrid_block_layout: one letter a layer: "t" attention, "swa" attention over a sliding window, "m2" Mamba with heads, "i" nothing.
    ssm_cfg: sizes of the Mamba layers: d_inner, d_xb, d_state, dt_rank, d_conv, repeat_kv_before_conv.
    molt: what Mistral has no keys for: attention.{qkv_bias, output_bias, qk_norm}, mlp.bias.
    """

    model_type = "apriel_hybrid_ssm"

    hybrid_block_layout: list | None = None
    ssm_cfg: dict | None = None
    molt: dict | None = None

    def __post_init__(self, **kwargs):
        if self.hybrid_block_layout is None:  # before transformers asks for layer_types; it makes a default one to save another
            self.hybrid_block_layout = ["t"] * self.num_hidden_layers
        super().__post_init__(**kwargs)
        unknown = sorted(set(self.hybrid_block_layout) - CACHES.keys())
        if unknown:
            raise ValueError(f"hybrid_block_layout: found {unknown}, expected letters of {sorted(CACHES)}")
        if len(self.hybrid_block_layout) != self.num_hidden_layers:
            raise ValueError(f"hybrid_block_layout: found {len(self.hybrid_block_layout)} letters for {self.num_hidden_layers} layers")
        self.ssm_cfg = {**SSM_DEFAULTS, **(self.ssm_cfg or {})}
        if self.ssm_cfg["d_xb"] is None:
            self.ssm_cfg["d_xb"] = self.hidden_size
        if self.ssm_cfg["dt_rank"] == "auto":
            self.ssm_cfg["dt_rank"] = -(-self.hidden_size // 16)

    def option(self, section, name):
        """Whether attention or mlp has something that Mistral's has not."""
        return bool(((self.molt or {}).get(section) or {}).get(name))

    @property
    def mlp_bias(self):
        return self.option("mlp", "bias")

    @property
    def letters(self):
        """The layout; without "swa" in it, a sliding_window is every attention layer's."""
        if self.sliding_window is None or "swa" in self.hybrid_block_layout:
            return self.hybrid_block_layout
        return ["swa" if letter == "t" else letter for letter in self.hybrid_block_layout]

    @property
    def layer_types(self):
        types = [CACHES[letter] for letter in self.letters]
        if self.token_counter is not None:
            types[self.token_counter] = "hybrid"
        return types

    @property
    def token_counter(self):
        """In a model without attention, the layer whose cache counts the tokens seen: transformers asks a cache of keys for them."""
        letters = self.letters
        return letters.index("m2") if "m2" in letters and not {"t", "swa"} & set(letters) else None
