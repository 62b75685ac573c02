module sockerless/agent

go 1.24
