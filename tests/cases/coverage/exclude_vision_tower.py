"""exclude_modules=["vision_tower"] excludes the container of that name and none of the layers inside it."""

from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peft_inspect.rules import Example

RULE = "PI109"


def llava():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=63))


def broken():
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], exclude_modules=["vision_tower"])
    return Example(get_peft_model(llava(), config))


def fixed():
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], exclude_modules=r".*vision_tower.*")
    return Example(get_peft_model(llava(), config))
