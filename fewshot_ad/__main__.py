"""``python -m fewshot_ad`` is the same command as ``fewshot-ad``."""

from fewshot_ad.cli import main

if __name__ == "__main__":
    main()
