"""The site: pages of all tables in one folder, without a server."""
