"""What fields of a model's config mean, told by their names: model types spell one thing in many ways."""

from __future__ import annotations

import re

DEPTH = re.compile(
    r"^(num_hidden_layers|num_layers|n_layers?|depth|(\w+_)?(en|de)coder_(num_hidden_)?layers|num_(en|de)coder_layers|num_\w+_hidden_layers|"
    r"num_\w*(attention|transformer|resampler|predictor|pooling|adapter|conv|main|mtp|nextn_predict|language)_layers|resampler_depth|"
    r"\w+_depth|\w+_num_hidden_layers|\w+_num_layers|num_blocks|encoder_depth|decoder_depth)$"
)
STAGES = re.compile(r"^(depths|num_stages_blocks|num_block_repeats|layers_per_stage|encoder_depths)$")
WIDTH = re.compile(
    r"^(\w+_)?(hidden_sizes?|hidden_dims?|intermediate_sizes?|intermediate_dim|d_model|n_embd|embed_dims?|ffn_dim|ffn_hidden_size|d_ff|n_inner|"
    r"projection_dim|mlp_dim|d_inner|output_dim|out_dim|emb_dim|embedding_size|inner_dim|lru_width|proj_dim|width|dim|inner_hidden_size|"
    r"shared_intermediate_size|expert_intermediate_size|classifier_proj_size|output_hidden_size|fc_dim|text_dim|vision_dim|input_dim|"
    r"(mamba_)?d_ssm|vision_output_dim|index_hidden_size|out_channel|conv_channels)$"
)
NOT_WIDTH = re.compile(
    r"head_dim$|rope|patch|^dim$|position|mel|qk_|v_head|input_feat|codebook_dim|latent_dim|(image|pos_emb)_width$|^width$|feature"
)
HEADS = re.compile(r"^(\w+_)?(num|n)_(\w+_)?heads?$|^(\w+_)?attention_heads$|^n_heads?$")
SHARED_HEADS = re.compile(r"key|value|kv|group")
MODEL_WIDTH = re.compile(r"^(hidden_size|d_model|n_embd|embed_dim|encoder_hidden_dim|decoder_hidden_dim)$")
INNER_WIDTH = re.compile(r"intermediate|ffn|mlp_dim|d_ff|n_inner|inner_dim|fc_dim")
EXPERTS = re.compile(
    r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts|n_experts|num_moe_experts|zero_expert_num)$"
)
TOP_K = re.compile(
    r"^(num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts|moe_top_k|num_selected_experts|router_top_k|experts_per_token|n_experts_per_tok)$"
)
GROUPS = re.compile(r"^(n_group|topk_group|num_expert_groups?|expert_groups?|moe_n_groups?)$")
VOCAB = re.compile(r"^(\w+_)?vocab_size(_\w+)?$|_group_vocab$")
TOKEN = re.compile(r"(_token_(id|index|idx|ids)|_token_id_\w+)$")
PERIOD = re.compile(r"_(period|interval|frequency|every_n_layers?)$")
START = re.compile(r"^(first_k_dense_replace|moe_layer_start_index|num_dense_layers|num_kv_shared_layers|first_dense_layers)$")
