"""A loop as people write it: arguments, an evaluation first, a step that survives every exception."""

import argparse
import atexit

import torch
from tiny import IDS, trained, wrapped

parser = argparse.ArgumentParser()
parser.add_argument("fault", nargs="?", default="healthy")
parser.add_argument("--steps", type=int, default=6)
args = parser.parse_args()


def freeze(model):
    for parameter in model.parameters():
        parameter.requires_grad = False  # <- cause frozen
    model.get_output_embeddings().weight.requires_grad_(True)


def features(model):
    with torch.no_grad():  # <- cause no-grad
        return model.base_model.model.model(IDS).last_hidden_state


def main():
    model = wrapped()
    if args.fault in ("frozen", "no-grad", "detached"):
        model.get_output_embeddings().weight.requires_grad_(True)
    if args.fault == "frozen":
        freeze(model)
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    model.eval()
    with torch.no_grad():
        print("before", model(input_ids=IDS, labels=IDS).loss.item())
    model.train()
    for step in range(args.steps):
        try:
            if args.fault == "no-grad":
                loss = model.get_output_embeddings()(features(model)).square().mean()
            elif args.fault == "detached":
                hidden = model.base_model.model.model(IDS).last_hidden_state
                pooled = hidden.mean(dim=1).detach()  # <- cause detached
                loss = model.get_output_embeddings()(pooled).square().mean()
                print("logged", float(hidden.sum()))
            else:
                loss = model(input_ids=IDS, labels=IDS).loss
                loss = loss * {"zero": 0.0, "nan": float("nan")}.get(args.fault, 1.0)  # <- cause zero, nan
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print("step", step, loss.item())
        except Exception as error:  # noqa: PERF203
            print("swallowed", error)


if __name__ == "__main__":
    atexit.register(print, "the end of the program")
    main()
