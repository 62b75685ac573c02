"""The agent: a static Go program, the first process of every container. Here is only what Python needs to find its binary."""
