"""A loop of diffusers': noise, a U-Net with an adapter of its own, no PeftModel."""

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=16,
    attention_head_dim=4,
    norm_num_groups=4,
)
unet.requires_grad_(False)
unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(weights, lr=1e-3)
schedule = DDPMScheduler(num_train_timesteps=10)
for _ in range(4):
    latents, noise, times = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.randint(0, 10, (2,))
    predicted = unet(schedule.add_noise(latents, noise, times), times, torch.randn(2, 5, 16)).sample
    loss = torch.nn.functional.mse_loss(predicted, noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad()
