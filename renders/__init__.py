"""Foregrounds with exact alpha, rendered by seed from sources with free licences."""
