"""The calculator as a server of the Model Context Protocol, over standard input and output.

python examples/calc_x/calculator_server.py
"""

from mcp.server.fastmcp import FastMCP
from rational import evaluate, show

server = FastMCP("calculator", log_level="WARNING")


@server.tool()
def calculator(expression: str) -> str:
    """Work out an arithmetic expression with + - * / % and brackets."""
    try:
        return show(evaluate(expression))
    except ValueError as error:
        return f"error: {error}"


if __name__ == "__main__":
    server.run()
