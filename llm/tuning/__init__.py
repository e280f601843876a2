"""How the judges that ship were trained: from rows of texts and labels to an adapter of a small encoder.

Nothing at run time imports this. It needs the extra `tune`.
"""
