"""The agent: a static Go program, the first process of every container. Python only needs to find its binary."""
