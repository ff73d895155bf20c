"""A hybrid of attention and Mamba layers, as molt exports it. Needs only torch and transformers 5, from 5.14 on, and runs on any device.
The scan is made of torch's own calls; molt itself is faster."""
import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask, find_packed_sequence_indices
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mistral.modeling_mistral import (
    MistralRMSNorm,
    MistralRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils import can_return_tuple, is_tracing

from .configuration_apriel_hybrid_ssm import CACHES, AprielHybridSSMConfig

# What transformers calls the cache in arguments and outputs: past_key_values before 5.24, cache since.
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"


class Attention(nn.Module):
    """Causal attention with grouped queries, over everything or over a sliding window."""

    is_causal = True

    def __init__(self, config, layer_idx, window):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.window = window
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        bias = config.option("attention", "qkv_bias")
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.option("attention", "output_bias"))
        self.normed = config.option("attention", "qk_norm")
        if self.normed:
            self.q_norm = MistralRMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = MistralRMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def forward(self, hidden, rotary, mask, cache, **kwargs):
        q, k, v = (proj(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.normed:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rotary_pos_emb(q, k, *rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        implementation = self.config._attn_implementation
        attend = eager_attention_forward if implementation == "eager" else ALL_ATTENTION_FUNCTIONS[implementation]
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed, _ = attend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling, sliding_window=self.window, **kwargs)
        return self.o_proj(mixed.flatten(2))


class Mamba(nn.Module):
    """Mamba-1 with heads. x and B come in groups of d_state columns, each serving d_inner / d_xb groups of C, z and the channels."""

    def __init__(self, config, layer_idx):
        super().__init__()
        ssm = config.ssm_cfg
        if ssm["bias"] or not ssm["dt_proj_bias"]:
            raise ValueError("ssm_cfg: expected bias false and dt_proj_bias true")
        self.layer_idx = layer_idx
        self.d_inner, self.d_xb, self.d_state, self.d_conv = ssm["d_inner"], ssm["d_xb"], ssm["d_state"], ssm["d_conv"]
        self.repeat_before_conv = ssm["repeat_kv_before_conv"]
        self.dt_range = ssm["dt_min"], ssm["dt_max"], ssm["dt_init_floor"]
        channels = self.d_inner if self.repeat_before_conv else self.d_xb
        self.in_proj = nn.Linear(config.hidden_size, 2 * self.d_inner + 2 * self.d_xb, bias=False)
        self.dt_in_proj = nn.Linear(config.hidden_size, ssm["dt_rank"], bias=False)
        self.dt_proj = nn.Linear(ssm["dt_rank"], self.d_inner)
        self.conv1d = nn.Conv1d(channels, channels, self.d_conv, groups=channels, bias=ssm["conv_bias"])
        self.A_log = nn.Parameter(torch.empty(self.d_inner, self.d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, config.hidden_size, bias=False)

    def repeated(self, x):
        """(…, d_xb) -> (…, d_inner): each group of d_state columns beside its copies."""
        return x.unflatten(-1, (-1, self.d_state)).repeat_interleave(self.d_inner // self.d_xb, dim=-2).flatten(-2)

    def convolved(self, x, cache):
        x = x.transpose(1, 2)
        before = None if cache is None else cache.layers[self.layer_idx].conv_states[0]
        if before is None:
            before = x.new_zeros(*x.shape[:2], self.d_conv - 1)
        x = torch.cat([before.to(x.dtype), x], dim=-1)
        if cache is not None:
            cache.update_conv_state(x[..., 1 - self.d_conv :].detach(), self.layer_idx)
        return F.silu(self.conv1d(x)).transpose(1, 2)

    def forward(self, hidden, mask, cache):
        # A padded token must leave no trace: its x is nothing before and after the convolution, and its step size is 0.
        keep = None if mask is None else mask[..., None].to(hidden.dtype)
        hidden = hidden if keep is None else hidden * keep
        z, x, B, C = self.in_proj(hidden).split([self.d_inner, self.d_xb, self.d_xb, self.d_inner], dim=-1)
        # The files hold half of dt's bias: the published code adds it in the projection and again in the scan. 2 (W r/2 + b) is the same.
        dt = F.softplus(2 * self.dt_proj(self.dt_in_proj(hidden) / 2).float())
        x = self.convolved(self.repeated(x) if self.repeat_before_conv else x, cache)
        x = x if self.repeat_before_conv else self.repeated(x)
        if keep is not None:
            x, dt = x * keep, dt * keep.float()
        before = None if cache is None else cache.layers[self.layer_idx].recurrent_states[0]
        # A GPU would wait for the start of each of a loop's many small kernels; a CPU would only compute twice what it needs once.
        length = x.shape[1]
        span = length if x.device.type == "cpu" else math.isqrt(length - 1) + 1
        y, state = self.scan(x.float(), dt, self.repeated(B).float(), C.float(), before, span)
        if cache is not None:
            cache.update_recurrent_state(state.detach(), self.layer_idx)
        y = (y + self.D.float() * x.float()) * F.silu(z.float())
        return self.out_proj(y.to(hidden.dtype))

    def scan(self, x, dt, B, C, state, span):
        """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t; all in fp32. Shapes (batch, length, d_inner).

        The sequence is cut into spans of `span` tokens, which are walked side by side: from nothing, for what each adds to the state
        that enters it, and then from that state, for y."""
        batch, length = x.shape[:2]
        groups = (self.d_inner // self.d_state, self.d_state)
        A = -torch.exp(self.A_log.float()).unflatten(0, groups)
        if length % span:  # dt is 0 where the last span is padded, which leaves the state as it is
            x, dt, B, C = (F.pad(value, (0, 0, 0, -length % span)) for value in (x, dt, B, C))
        x, dt, B, C = (value.unflatten(-1, groups).unflatten(1, (-1, span)) for value in (x, dt, B, C))
        steps = list(zip(x.unbind(2), dt.unbind(2), B.unbind(2), C.unbind(2)))  # each of all spans: (batch, spans, *groups)

        def walk(state):
            for x_t, dt_t, B_t, C_t in steps:
                state = torch.exp(dt_t[..., None] * A) * state + (dt_t * x_t)[..., None] * B_t[..., None, :]
                yield state, C_t

        state = x.new_zeros(batch, *groups, self.d_state) if state is None else state
        entering = state[:, None]
        if x.shape[1] > 1:
            for added, _ in walk(x.new_zeros(*x.shape[:2], *groups, self.d_state)):
                pass
            kept = torch.exp(dt.sum(2)[..., None] * A)
            states = [state]
            for kept_by_span, added_by_span in zip(kept[:, :-1].unbind(1), added[:, :-1].unbind(1)):
                states.append(kept_by_span * states[-1] + added_by_span)
            entering = torch.stack(states, dim=1)
        outputs = []
        for state, C_t in walk(entering):
            outputs.append((state * C_t[..., None, :]).sum(-1))
        return torch.stack(outputs, dim=2).flatten(1, 2)[:, :length].flatten(-2), state[:, -1].clone()  # not a view of all spans'


class DecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config, layer_idx, letter):
        super().__init__()
        self.letter = letter
        if letter == "m2":
            self.mixer = Mamba(config, layer_idx)
        else:
            self.self_attn = Attention(config, layer_idx, config.sliding_window if letter == "swa" else None)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = MistralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = MistralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden, rotary, masks, cache, **kwargs):
        normed = self.input_layernorm(hidden)
        if "packed" in masks and self.letter == "m2":
            rows = zip(normed.split(1), masks["packed"])
            parts = [[self.mixer(part, None, None) for part in row.split(lengths, dim=1)] for row, lengths in rows]
            hidden = hidden + torch.cat([torch.cat(row, dim=1) for row in parts])
        elif self.letter == "m2":
            hidden = hidden + self.mixer(normed, masks["m2"], cache)
        else:
            hidden = hidden + self.self_attn(normed, rotary, masks[self.letter], cache, **kwargs)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Identity(nn.Module):
    """A layer that hidden states pass unchanged."""

    def forward(self, hidden, *args, **kwargs):
        return hidden


class AprielHybridSSMPreTrainedModel(PreTrainedModel):
    config_class = AprielHybridSSMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True  # a state cannot be taken back, which assisted generation would do
    _no_split_modules = ["DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["mixer.A_log", "mixer.D"]

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, Mamba):
            low, high, floor = module.dt_range
            dt = torch.exp(torch.empty(module.d_inner).uniform_(math.log(low), math.log(high))).clamp(min=floor)
            init.copy_(module.A_log, torch.log(torch.arange(1.0, module.d_state + 1)).expand(module.d_inner, -1))
            init.ones_(module.D)
            init.copy_(module.dt_proj.bias, (dt + torch.log(-torch.expm1(-dt))) / 2)


class AprielHybridSSMModel(AprielHybridSSMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(Identity() if letter == "i" else DecoderLayer(config, i, letter) for i, letter in enumerate(config.letters))
        self.norm = MistralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = MistralRotaryEmbedding(config=config)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, use_cache=None,
                output_hidden_states=None, cache=None, **kwargs):
        cache = past_key_values if cache is None else cache
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        masks, rotary = self.masks(hidden, attention_mask, position_ids, cache), None
        if masks.keys() & {"t", "swa"}:
            if position_ids is None:
                seen = 0 if cache is None else cache.get_seq_length()
                position_ids = torch.arange(seen, seen + hidden.shape[1], device=hidden.device)[None]
            rotary = self.rotary_emb(hidden, position_ids=position_ids)
        if cache is not None and self.config.token_counter is not None:
            no_keys = hidden.new_empty(*hidden.shape[:2], 0)[:, None]
            cache.update(no_keys, no_keys, self.config.token_counter)
        all_hidden = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, rotary, masks, cache, **kwargs)
            all_hidden.append(hidden)
        hidden = self.norm(hidden)
        all_hidden[-1] = hidden
        return BaseModelOutputWithPast(last_hidden_state=hidden, hidden_states=tuple(all_hidden) if output_hidden_states else None,
                                       **{CACHE: cache if use_cache else None})

    def masks(self, hidden, attention_mask, position_ids, cache):
        """What each letter of the layout may not look at; `packed`, the lengths of the sequences that each row holds end to end."""
        letters = list(self.config.letters)
        if isinstance(attention_mask, dict):  # as generate makes them for a cache of fixed size
            return {letter: attention_mask[CACHES[letter]] for letter in set(letters) - {"i"}}
        arguments = {"config": self.config, "inputs_embeds": hidden, "attention_mask": attention_mask, "position_ids": position_ids,
                     CACHE: cache}
        masks = {}
        for letter, create in (("t", create_causal_mask), ("swa", create_sliding_window_causal_mask)):
            if letter in letters:  # without its number, some versions of transformers take a Mamba layer for it
                masks[letter] = create(**arguments, layer_idx=letters.index(letter))
        if "m2" in letters:
            masks["m2"] = attention_mask[:, -hidden.shape[1] :] if attention_mask is not None and attention_mask.dim() == 2 else None
            # Where attention takes positions that begin anew for another sequence, no state may pass either.
            if position_ids is not None and attention_mask is None and cache is None:
                sequences = find_packed_sequence_indices(position_ids.expand(len(hidden), -1))
                if sequences is not None and not is_tracing(sequences):
                    masks["packed"] = [row.bincount().tolist() for row in sequences]
        return masks


class AprielHybridSSMForCausalLM(AprielHybridSSMPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = AprielHybridSSMModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, logits_to_keep=0, cache=None, **kwargs):
        num_items = {key: kwargs.pop(key) for key in ("num_items_in_batch",) if key in kwargs}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds,
                            use_cache=use_cache, cache=past_key_values if cache is None else cache, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **num_items)
        return CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=output.hidden_states, **{CACHE: getattr(output, CACHE)})

    def generate(self, inputs=None, generation_config=None, **kwargs):
        if getattr(generation_config, "is_assistant", False):
            raise ValueError(f"{type(self).__name__} cannot be another model's assistant: tokens of its draft that are not accepted "
                             "would have to be taken back, and the state of a Mamba layer cannot be")
        return super().generate(inputs, generation_config=generation_config, **kwargs)
