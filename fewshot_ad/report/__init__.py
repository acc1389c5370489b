"""Result rows become something people look at: tables and pictures."""
