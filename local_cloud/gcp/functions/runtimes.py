"""The languages that Cloud Functions builds for the second generation.

Facts: cloud.google.com/functions/docs/runtime-support. There is no runtime for a container image of one's own.
"""

from __future__ import annotations

RUNTIMES: dict[str, str] = {
    "dotnet6": ".NET 6", "dotnet8": ".NET 8", "go121": "Go 1.21", "go122": "Go 1.22", "go123": "Go 1.23",
    "go124": "Go 1.24", "go125": "Go 1.25", "java11": "Java 11", "java17": "Java 17", "java21": "Java 21",
    "nodejs18": "Node.js 18", "nodejs20": "Node.js 20", "nodejs22": "Node.js 22", "nodejs24": "Node.js 24",
    "php82": "PHP 8.2", "php83": "PHP 8.3", "php84": "PHP 8.4", "python39": "Python 3.9", "python310": "Python 3.10",
    "python311": "Python 3.11", "python312": "Python 3.12", "python313": "Python 3.13", "python314": "Python 3.14",
    "ruby32": "Ruby 3.2", "ruby33": "Ruby 3.3", "ruby34": "Ruby 3.4",
}  # fmt: skip
"""Runtime → its name for people."""
