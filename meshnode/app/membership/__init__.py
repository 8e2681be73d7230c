"""Becoming and staying a member: invites, those a joiner was told of, renewal, who may admit."""
