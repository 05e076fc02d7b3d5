"""A training program with a fault: the features are computed as they were when the encoder was frozen."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaModel

SHAPE = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


class Classifier(torch.nn.Module):
    """An encoder with LoRA, and a head on the mean of its last hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = get_peft_model(LlamaModel(LlamaConfig(**SHAPE)), LoraConfig(target_modules=["q_proj", "v_proj"]))
        self.head = torch.nn.Linear(SHAPE["hidden_size"], 2)

    def features(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens: float32[batch, width]."""
        with torch.no_grad():
            return self.encoder(input_ids=input_ids).last_hidden_state.mean(dim=1)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of int64[batch, length] tokens and int64[batch] labels."""
        return torch.nn.functional.cross_entropy(self.head(self.features(input_ids)), labels)


def main() -> None:
    """Train on noise."""
    model = Classifier()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    for _ in range(100):
        loss = model(torch.randint(100, (4, 12)), torch.randint(2, (4,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
