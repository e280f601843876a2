"""A LlamaIndex query engine that answers behind a policy."""

from trackbed.apps.adapters.llamaindex import GuardedQueryEngine
from trackbed.apps.build import build
from trackbed.apps.settings import load_settings
from trackbed.rails import load_policy

with build(load_settings(), load_policy("default")) as pipeline:
    engine = GuardedQueryEngine(pipeline)
    response = engine.query("Can a client send its own system prompt?")
    print(response)
    for source in response.source_nodes:
        print(f"  {source.node.metadata['source']}: {source.node.get_content()}")
